//! One JSON object per line, for programs.

use std::fmt::Write;

/// An object as it grows, its fields in the order they are added.
#[derive(Debug, Default)]
pub struct Object(String);

impl Object {
    /// Adds a text.
    #[must_use]
    pub fn text(self, key: &str, value: &str) -> Self {
        let mut quoted = String::from("\"");
        for c in value.chars() {
            let _ = match c {
                '"' => write!(quoted, "\\\""),
                '\\' => write!(quoted, "\\\\"),
                c if c.is_control() => write!(quoted, "\\u{:04x}", u32::from(c)),
                c => write!(quoted, "{c}"),
            };
        }
        quoted.push('"');
        self.raw(key, &quoted)
    }

    /// Adds a text when there is one.
    #[must_use]
    pub fn maybe_text(self, key: &str, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.text(key, value),
            None => self,
        }
    }

    /// Adds a whole number.
    #[must_use]
    pub fn number(self, key: &str, value: u64) -> Self {
        self.raw(key, &value.to_string())
    }

    /// Adds true or false.
    #[must_use]
    pub fn flag(self, key: &str, value: bool) -> Self {
        self.raw(key, if value { "true" } else { "false" })
    }

    /// The line.
    #[must_use]
    pub fn line(self) -> String {
        format!("{{{}}}", self.0)
    }

    /// Adds a value that is JSON already.
    #[must_use]
    pub fn raw(mut self, key: &str, value: &str) -> Self {
        let comma = if self.0.is_empty() { "" } else { "," };
        let _ = write!(self.0, "{comma}\"{key}\":{value}");
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_quoted_so_that_a_line_stays_one_line() {
        let line = Object::default()
            .text("a", "x\"\\\n\u{1b}é")
            .number("b", 7)
            .flag("c", true)
            .maybe_text("d", None);
        assert_eq!(line.line(), "{\"a\":\"x\\\"\\\\\\u000a\\u001bé\",\"b\":7,\"c\":true}");
    }
}
