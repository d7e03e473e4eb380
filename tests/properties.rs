//! Property tests over the public library, one module per format or algorithm.

#[path = "properties/codec.rs"]
mod codec;
