//! Bytes of messages and records. The only file that names the `bincode` crate.
//!
//! bincode 2, little-endian, variable-length integers, with a limit: a length from outside never allocates more than
//! `BYTES_MAX`, and bytes after the value are refused. Block bytes never pass through here (they follow raw).

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Largest encoded value, bytes.
pub const BYTES_MAX: usize = super::limits::FRAME_BYTES_MAX;

/// Why bytes are not a value.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// The value cannot be written.
    #[error("cannot encode")]
    Encode(#[from] bincode::error::EncodeError),
    /// The bytes are not this value, or too large.
    #[error("cannot decode")]
    Decode(#[from] bincode::error::DecodeError),
    /// Bytes remain after the value.
    #[error("{0} bytes too many")]
    Trailing(usize),
}

fn config() -> impl bincode::config::Config {
    bincode::config::standard().with_little_endian().with_variable_int_encoding().with_limit::<BYTES_MAX>()
}

/// Encodes `value`.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, CodecError> {
    Ok(bincode::serde::encode_to_vec(value, config())?)
}

/// Decodes exactly one value from all of `bytes`.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let (value, used) = bincode::serde::decode_from_slice(bytes, config())?;
    match bytes.len().saturating_sub(used) {
        0 => Ok(value),
        rest => Err(CodecError::Trailing(rest)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trailing_bytes_and_short_input_are_refused() {
        let mut bytes = encode(&(7u64, "x".to_owned())).unwrap();
        assert_eq!(decode::<(u64, String)>(&bytes).unwrap().0, 7);
        assert!(decode::<(u64, String)>(bytes.get(..2).unwrap()).is_err());
        bytes.push(0);
        assert!(matches!(decode::<(u64, String)>(&bytes), Err(CodecError::Trailing(1))));
    }

    #[test]
    fn a_length_bomb_is_an_error_not_an_allocation() {
        let mut bytes = vec![253];
        bytes.extend_from_slice(&(1u64 << 40).to_le_bytes());
        assert!(decode::<Vec<u64>>(&bytes).is_err());
        assert!(decode::<String>(&bytes).is_err());
    }
}
