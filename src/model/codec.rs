//! Bytes of messages and records. The only file that names the `bincode` crate.
//!
//! bincode 2, little-endian, variable-length integers, with a limit: a length from outside never allocates more than
//! `BYTES_MAX`, and bytes after the value are refused. Block bytes never pass through here (they follow raw).
//!
//! Whatever was encoded decodes: what the decoder would count too much is not encoded. Otherwise a commit could become durable
//! that no start reads again, and a page be sent that no client takes.

mod weight;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Largest value, bytes: as it is encoded, and as a decoder counts it.
pub const BYTES_MAX: usize = super::limits::FRAME_BYTES_MAX;

/// Why bytes are not a value.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// The value cannot be written.
    #[error("cannot encode")]
    Encode(#[from] bincode::error::EncodeError),
    /// It would not decode.
    #[error("a value of {0} bytes, as they are counted, is too large")]
    TooLarge(usize),
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
///
/// # Errors
/// [`CodecError::TooLarge`] for one that [`decode`] would refuse.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, CodecError> {
    let bytes = bincode::serde::encode_to_vec(value, config())?;
    // Most values are far too small to be weighed.
    if bytes.len() > BYTES_MAX / weight::PER_BYTE_MAX {
        let counted = weight::weight(value).unwrap_or(usize::MAX).max(bytes.len());
        if counted > BYTES_MAX {
            return Err(CodecError::TooLarge(counted));
        }
    }
    Ok(bytes)
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
    fn exactly_what_decodes_is_encoded() {
        #[derive(Serialize, serde::Deserialize, Clone)]
        enum Part {
            Nothing,
            One(i64),
            Pair(u16, bool),
            Fields { text: String, bytes: Vec<u8>, number: Option<u32>, rest: [u8; 5] },
        }
        let fields = |text: &str| Part::Fields {
            text: text.to_owned(),
            bytes: vec![1; 3],
            number: Some(9),
            rest: [7; 5],
        };
        let map = std::collections::BTreeMap::from([('é', 1u128), ('x', 2)]);
        let each = [Part::Nothing, Part::One(-1), Part::Pair(1, true), fields("t"), fields("")];
        let many: Vec<Part> = each.iter().cycle().take(45_000).cloned().collect();
        let mut refused = 0;
        // Around the limit, in steps of a byte.
        let free = BYTES_MAX - weight::weight(&(&many, &map, "")).unwrap();
        for len in free - 9..free + 9 {
            let value = (&many, &map, "x".repeat(len));
            let bytes = bincode::serde::encode_to_vec(&value, config()).unwrap();
            type Back = (Vec<Part>, std::collections::BTreeMap<char, u128>, String);
            let decodes = decode::<Back>(&bytes).is_ok();
            assert_eq!(encode(&value).is_ok(), decodes, "{len}");
            refused += usize::from(!decodes);
        }
        assert_eq!(refused, 8, "the limit itself is still in it");
        assert!(matches!(encode(&"x".repeat(BYTES_MAX)), Err(CodecError::TooLarge(_))));
    }

    #[test]
    fn a_length_bomb_is_an_error_not_an_allocation() {
        let mut bytes = vec![253];
        bytes.extend_from_slice(&(1u64 << 40).to_le_bytes());
        assert!(decode::<Vec<u64>>(&bytes).is_err());
        assert!(decode::<String>(&bytes).is_err());
    }
}
