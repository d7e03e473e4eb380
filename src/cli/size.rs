//! Amounts of bytes as people write them.

/// Reads `500MB`, `20 GB`, `2T` or `1GiB`: units of 1000 as they are shown everywhere here, with an `i` of 1024.
pub fn bytes(text: &str) -> Result<u64, String> {
    let wrong = || "an amount of bytes, for example 500MB or 20GB".to_owned();
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim_start().to_ascii_lowercase();
    let (letter, base) = match unit.strip_suffix("ib") {
        Some(letter) => (letter, 1024_u64),
        None => (unit.strip_suffix('b').unwrap_or(&unit), 1000),
    };
    let power = match letter {
        // Of 1024 there is no zeroth power.
        "" if base == 1000 => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    base.checked_pow(power).and_then(|unit| number.checked_mul(unit)).ok_or_else(wrong)
}

/// The same, or `none`.
pub fn bytes_or_none(text: &str) -> Result<Limit, String> {
    if text.trim().eq_ignore_ascii_case("none") {
        Ok(Limit(None))
    } else {
        bytes(text).map(|n| Limit(Some(n)))
    }
}

/// An amount, or no bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit(pub Option<u64>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_as_people_write_them() {
        let read = |text| bytes(text).ok();
        assert_eq!([read("0"), read("7b"), read("12")], [Some(0), Some(7), Some(12)]);
        assert_eq!(
            [read("500MB"), read("500 m"), read("2T")],
            [Some(500_000_000), Some(500_000_000), Some(2_000_000_000_000)]
        );
        assert_eq!([read("1GiB"), read("3 kib")], [Some(1 << 30), Some(3072)]);
        for text in
            ["", "GB", "-1", "1.5GB", "5 fl", "ib", "1ib", "99999999999999999999", "20000000PB", "1G1"]
        {
            assert_eq!(read(text), None, "{text}");
        }
        assert_eq!(bytes_or_none("None"), Ok(Limit(None)));
        assert_eq!(bytes_or_none("1k"), Ok(Limit(Some(1000))));
    }
}
