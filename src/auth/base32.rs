//! Keys as text: RFC 4648 base32 in lower case without padding, which people can read out and paste anywhere.

const DIGITS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// Digits for bytes.
pub fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(5) * 8);
    let (mut held, mut bits) = (0u32, 0u32);
    let mut put = |five: u32| {
        let digit = usize::try_from(five & 31).ok().and_then(|five| DIGITS.get(five)).copied();
        text.push(char::from(digit.unwrap_or(b'a')));
    };
    for byte in bytes {
        held = (held << 8 | u32::from(*byte)) & 0xffff;
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            put(held >> bits);
        }
    }
    if bits > 0 {
        put(held << (5 - bits));
    }
    text
}

/// Exactly `N` bytes from digits; `None` for anything else, also for bits left over that are not zero.
pub fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != (N * 8).div_ceil(5) {
        return None;
    }
    let mut bytes = [0u8; N];
    let mut out = bytes.iter_mut();
    let (mut held, mut bits) = (0u32, 0u32);
    for digit in text.bytes() {
        let five = DIGITS.iter().position(|known| *known == digit.to_ascii_lowercase())?;
        held = (held << 5 | u32::try_from(five).ok()?) & 0xffff;
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            if let Some(byte) = out.next() {
                *byte = u8::try_from(held >> bits & 0xff).ok()?;
            }
        }
    }
    (held & ((1 << bits) - 1) == 0).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answers_and_the_way_back() {
        assert_eq!(encode(b"foobar"), "mzxw6ytboi");
        assert_eq!(decode::<6>("MZXW6YTBOI"), Some(*b"foobar"));
        let bytes: [u8; 32] = std::array::from_fn(|i| u8::try_from(i * 7 % 256).unwrap());
        assert_eq!(encode(&bytes).len(), 52);
        assert_eq!(decode::<32>(&encode(&bytes)), Some(bytes));
    }

    #[test]
    fn one_text_for_one_value() {
        assert_eq!(decode::<6>("mzxw6ytbo1"), None, "no digit");
        assert_eq!(decode::<6>("mzxw6ytbo"), None, "too short");
        assert_eq!(decode::<1>("ab"), None, "bits left over");
        assert_eq!(decode::<1>("aa"), Some([0]));
    }
}
