//! Placeholder until the room lands.
fn main() {}
