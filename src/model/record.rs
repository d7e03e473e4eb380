//! Checksummed records: how every append-only file of dropblock is framed (journal, client state).
//!
//! ```text
//! offset size  field
//! 0      4     payload length n, u32 LE, at most `RECORD_BYTES_MAX`
//! 4      8     first 8 bytes of BLAKE3(length || payload)
//! 12     n     payload
//! ```
//! A reader can tell three cases apart: a whole record, a torn tail (the file ends inside a record, or what remains is
//! zeros), and damage (the checksum is wrong although more bytes follow).

use super::hash::checksum8;

/// Largest payload, bytes.
pub const RECORD_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes before the payload.
pub const HEADER_BYTES: usize = 12;

/// What stands at the front of some bytes.
#[derive(Debug, PartialEq, Eq)]
pub enum Parsed<'a> {
    /// A whole record, and how many bytes it takes with its header.
    Record {
        /// What was written.
        payload: &'a [u8],
        /// Header and payload.
        bytes: usize,
    },
    /// Nothing remains.
    End,
    /// The bytes end before the record does. Normal only at the end of a file that was cut while it grew.
    Torn,
    /// The bytes are there, but they are not what was written.
    Damaged,
}

/// Appends one record to `out`. `None` when the payload is too large (nothing is appended).
#[must_use]
pub fn append(out: &mut Vec<u8>, payload: &[u8]) -> Option<()> {
    if payload.len() > RECORD_BYTES_MAX {
        return None;
    }
    let len = u32::try_from(payload.len()).ok()?.to_le_bytes();
    out.extend_from_slice(&len);
    out.extend_from_slice(&checksum8(&[&len, payload]));
    out.extend_from_slice(payload);
    Some(())
}

/// Reads the record at the front of `bytes`.
pub fn parse(bytes: &[u8]) -> Parsed<'_> {
    if bytes.is_empty() {
        return Parsed::End;
    }
    let Some((len_bytes, rest)) = bytes.split_first_chunk::<4>() else { return Parsed::Torn };
    let Some((sum, rest)) = rest.split_first_chunk::<8>() else { return Parsed::Torn };
    let Ok(len) = usize::try_from(u32::from_le_bytes(*len_bytes)) else { return Parsed::Damaged };
    if len > RECORD_BYTES_MAX {
        return Parsed::Damaged;
    }
    let Some(payload) = rest.get(..len) else { return Parsed::Torn };
    if checksum8(&[len_bytes, payload]) != *sum {
        return Parsed::Damaged;
    }
    Parsed::Record { payload, bytes: HEADER_BYTES + len }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_and_every_cut_is_torn_and_every_flip_is_damage() {
        let mut bytes = Vec::new();
        append(&mut bytes, b"one").unwrap();
        append(&mut bytes, b"").unwrap();
        let Parsed::Record { payload, bytes: used } = parse(&bytes) else { panic!() };
        assert_eq!((payload, used), (&b"one"[..], 15));
        assert_eq!(parse(&bytes[15..]), Parsed::Record { payload: b"", bytes: 12 });
        assert_eq!(parse(&bytes[27..]), Parsed::End);
        for cut in 1..15 {
            assert_eq!(parse(&bytes[..cut]), Parsed::Torn, "cut at {cut}");
        }
        for bit in 0..15 * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(!matches!(parse(&flipped), Parsed::Record { .. } | Parsed::End), "bit {bit}");
        }
    }
}
