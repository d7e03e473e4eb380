//! Property tests: what must hold for any input. One module a room, in `tests/properties/`.

mod properties {
    mod reconcile;
}
