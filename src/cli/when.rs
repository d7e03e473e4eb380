//! Times as people write them: `2h`, `3d 12h`, `2026-11-20 14:00`, `2026-11-20`, RFC 3339; and how they are shown.

use crate::model::past::Moment;
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

/// A length of time: `30d`, `12h`, `1d 6h`, or `0`. Milliseconds.
pub fn duration_ms(text: &str) -> Result<u64, String> {
    let wrong = || "a length of time, for example 30d, 12h or 45m".to_owned();
    let mut rest = text.trim();
    if rest == "0" {
        return Ok(0);
    }
    let mut total: u64 = 0;
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let (number, tail) = rest.split_at(digits);
        let letters = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let seconds: u64 = match unit {
            "s" | "sec" => 1,
            "m" | "min" => 60,
            "h" => 3600,
            "d" => 86_400,
            "w" => 7 * 86_400,
            _ => return Err(wrong()),
        };
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let ms = number.checked_mul(seconds * 1000).ok_or_else(wrong)?;
        total = total.checked_add(ms).ok_or_else(wrong)?;
        rest = tail.trim_start();
    }
    Ok(total)
}

/// A point in time; ages are by the server's clock, dates without a zone in the zone of this machine.
pub fn moment(text: &str) -> Result<Moment, String> {
    let text = text.trim();
    if let Ok(age_ms) = duration_ms(text) {
        return Ok(Moment::Age(age_ms));
    }
    let local = |time: DateTime| time.to_zoned(TimeZone::system()).ok().map(|zoned| zoned.timestamp());
    let has_zone = text.ends_with(['Z', 'z']) || text.get(10..).is_some_and(|time| time.contains(['+', '-']));
    let time = match has_zone {
        true => text.parse::<Timestamp>().ok(),
        false => {
            let time = text.parse::<DateTime>().ok();
            time.or_else(|| text.parse::<Date>().ok().map(|date| date.at(0, 0, 0, 0))).and_then(local)
        }
    };
    let time = time.ok_or("2h, 3d, \"2026-11-20 14:00\", or a time as in RFC 3339")?;
    // The whole second or millisecond that was named has passed then: `log` shows seconds.
    let rest_ms = if names_a_second(text) && time.as_millisecond() % 1000 == 0 { 999 } else { 0 };
    u64::try_from(time.as_millisecond())
        .map(|ms| Moment::Time(ms + rest_ms))
        .map_err(|_| "a time after 1970".to_owned())
}

/// True for `…14:03:11` and not for `…14:03` or `…14:03:11.5`.
fn names_a_second(text: &str) -> bool {
    let time = text.get(10..).unwrap_or_default();
    let time = time.split(['Z', 'z', '+', '-']).next().unwrap_or_default();
    time.matches(':').count() == 2 && !time.contains('.')
}

/// `2026-11-20 14:03:11`, in the zone of this machine.
pub fn shown(time_ms: u64) -> String {
    let zoned = timestamp(time_ms).map(|time| Zoned::new(time, TimeZone::system()));
    zoned.map_or_else(|| "?".to_owned(), |zoned| zoned.strftime("%Y-%m-%d %H:%M:%S").to_string())
}

/// `2026-11-20T13:03:11.123Z`.
pub fn rfc3339(time_ms: u64) -> String {
    timestamp(time_ms).map_or_else(|| "?".to_owned(), |time| format!("{time:.3}"))
}

fn timestamp(time_ms: u64) -> Option<Timestamp> {
    Timestamp::from_millisecond(i64::try_from(time_ms).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_are_read_and_nonsense_is_not() {
        let read = |text| duration_ms(text).ok();
        assert_eq!(read("30d"), Some(2_592_000_000));
        assert_eq!(read("0"), Some(0));
        assert_eq!(
            [read("90s"), read("2m"), read("1h"), read("1w")],
            [90, 120, 3600, 604_800].map(|s| Some(s * 1000))
        );
        assert_eq!(read("1d 6h"), read("30h"));
        assert_eq!(read("1h30m"), read("90min"));
        for text in [
            "",
            "5",
            "d",
            "-3d",
            "3 days ago",
            "1.5h",
            "99999999999999999999d",
            "18446744073709551615w",
            "30d x",
        ] {
            assert_eq!(read(text), None, "{text:?}");
        }
    }

    #[test]
    fn points_in_time_are_read_and_nonsense_is_not() {
        let ms = 1_795_183_200_123;
        assert_eq!(moment("2h"), Ok(Moment::Age(7_200_000)));
        assert_eq!(moment("2026-11-20T14:00:00.123Z"), Ok(Moment::Time(ms)));
        assert_eq!(moment("2026-11-20T16:00:00.123+02:00"), Ok(Moment::Time(ms)));
        assert_eq!(rfc3339(ms), "2026-11-20T14:00:00.123Z");
        let local = moment("2026-11-20 14:00").unwrap();
        let Moment::Time(minute) = local else { panic!() };
        // Everything that happened in the second that `log` shows.
        assert_eq!(moment("2026-11-20T14:00:00"), Ok(Moment::Time(minute + 999)));
        assert_eq!(moment("2026-11-20T14:00:00.000"), Ok(local));
        assert_eq!(moment("2026-11-20T14:00:00Z"), Ok(Moment::Time(ms - 123 + 999)));
        assert_eq!(moment("2026-11-20T16:00:00+02:00"), Ok(Moment::Time(ms - 123 + 999)));
        let Moment::Time(local) = local else { panic!() };
        assert_eq!(shown(local), "2026-11-20 14:00:00");
        assert!(matches!(moment("2026-11-20"), Ok(Moment::Time(_))));
        for text in ["", "yesterday", "2026-13-40", "14:00", "2026-11-20 25:00", "1960-01-01T00:00:00Z"] {
            assert!(moment(text).is_err(), "{text:?}");
        }
    }
}
