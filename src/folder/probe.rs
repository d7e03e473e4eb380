//! The decoder of this room's file, for whoever feeds it any bytes (`fuzz/`).

/// True for the client's state, as a whole file.
pub fn state(bytes: &[u8]) -> bool {
    super::state_log::replay(bytes).is_ok()
}
