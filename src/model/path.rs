//! Names and paths inside a share. Names are bytes: a Linux name need not be UTF-8.
//!
//! [`Name`] has one constructor, and it refuses whatever could leave the folder. Nothing is ever "cleaned up".

use super::limits;
use serde::{Deserialize, Deserializer, Serialize};
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

/// The one private name, at the top of a synced folder only.
pub const PRIVATE_DIR: &str = ".dropblock";

/// One component of a path: 1 to 255 bytes, no `/`, no NUL, not `.` or `..`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Name(#[serde(with = "name_bytes")] Arc<[u8]>);

/// Why bytes are not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// No bytes at all.
    #[error("empty name")]
    Empty,
    /// More than [`limits::NAME_BYTES_MAX`].
    #[error("name of {0} bytes is longer than {max}", max = limits::NAME_BYTES_MAX)]
    TooLong(usize),
    /// `/`, NUL, `.` or `..`.
    #[error("name {0} is not allowed")]
    Forbidden(String),
}

impl Name {
    /// Checks and takes a name.
    pub fn new(bytes: &[u8]) -> Result<Self, NameError> {
        if bytes.is_empty() {
            return Err(NameError::Empty);
        }
        if bytes.len() > limits::NAME_BYTES_MAX {
            return Err(NameError::TooLong(bytes.len()));
        }
        if bytes == b"." || bytes == b".." || bytes.iter().any(|b| *b == b'/' || *b == 0) {
            return Err(NameError::Forbidden(escape(bytes)));
        }
        Ok(Self(bytes.into()))
    }

    /// The raw bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// As the operating system wants it.
    pub fn as_os_str(&self) -> &OsStr {
        OsStr::from_bytes(&self.0)
    }

    /// True for `.dropblock`, which is private at the top of a folder and an ordinary name below it.
    pub fn is_private_dir(&self) -> bool {
        &*self.0 == PRIVATE_DIR.as_bytes()
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = name_bytes::deserialize(deserializer)?;
        Self::new(&bytes).map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&escape(&self.0))
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", escape(&self.0))
    }
}

/// Names travel as byte strings, not as sequences of numbers.
mod name_bytes {
    use serde::{Deserializer, Serializer, de};
    use std::fmt;

    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        struct Bytes;
        impl de::Visitor<'_> for Bytes {
            type Value = Vec<u8>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the bytes of a name")
            }
            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
                Ok(bytes.to_vec())
            }
            fn visit_byte_buf<E: de::Error>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
                Ok(bytes)
            }
        }
        deserializer.deserialize_byte_buf(Bytes)
    }
}

/// A path below the top of a share; empty for the top itself.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RelPath(Vec<Name>);

impl RelPath {
    /// The top folder.
    pub const fn root() -> Self {
        Self(Vec::new())
    }

    /// From components, outermost first.
    pub const fn from_names(names: Vec<Name>) -> Self {
        Self(names)
    }

    /// From `a/b/c`; no leading, trailing or doubled slash, no `.` or `..`.
    pub fn parse(bytes: &[u8]) -> Result<Self, NameError> {
        if bytes.is_empty() {
            return Ok(Self::root());
        }
        bytes.split(|b| *b == b'/').map(Name::new).collect::<Result<_, _>>().map(Self)
    }

    /// The components, outermost first.
    pub fn names(&self) -> &[Name] {
        &self.0
    }

    /// True for the top folder.
    pub const fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// This path and one more component.
    #[must_use]
    pub fn join(&self, name: &Name) -> Self {
        let mut names = Vec::with_capacity(self.0.len() + 1);
        names.extend_from_slice(&self.0);
        names.push(name.clone());
        Self(names)
    }

    /// Parent folder and own name; `None` for the top.
    pub fn split_last(&self) -> Option<(Self, &Name)> {
        self.0.split_last().map(|(name, parent)| (Self(parent.to_vec()), name))
    }

    /// True when `self` is `other` or lies inside it.
    pub fn starts_with(&self, other: &Self) -> bool {
        self.0.starts_with(&other.0)
    }

    /// `a/b/c` as an OS path relative to the top (`.` for the top).
    pub fn to_os_path(&self) -> std::path::PathBuf {
        if self.is_root() {
            return ".".into();
        }
        self.0.iter().map(Name::as_os_str).collect()
    }
}

impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_root() {
            return f.write_str(".");
        }
        for (i, name) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("/")?;
            }
            name.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Debug for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

/// Makes bytes from others safe to print: control characters, bidi controls, backslashes and bytes that are not UTF-8
/// come out as `\xNN` or `\u{NN}`, so that a name can neither move the cursor nor fake a line of a log.
pub fn escape(bytes: &[u8]) -> String {
    use fmt::Write;
    let mut text = String::with_capacity(bytes.len());
    for part in bytes.utf8_chunks() {
        for c in part.valid().chars() {
            let bidi =
                matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
            let separator = matches!(c, '\u{2028}' | '\u{2029}');
            if c == '\\' || c.is_control() || bidi || separator {
                let _ = if c.is_ascii() {
                    write!(text, "\\x{:02x}", u32::from(c))
                } else {
                    write!(text, "\\u{{{:x}}}", u32::from(c))
                };
            } else {
                text.push(c);
            }
        }
        for byte in part.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_a_linux_folder_can_hold_is_taken_byte_for_byte() {
        let long = [b'x'; 255];
        for bytes in [
            &b"a"[..],
            b" ",
            b"...",
            b"\xff\xfe",
            b"a\nb",
            b"-rf",
            "e\u{301}".as_bytes(),
            &long,
            b".dropblock",
        ] {
            assert_eq!(Name::new(bytes).unwrap().as_bytes(), bytes);
        }
    }

    #[test]
    fn names_that_could_leave_the_folder_are_refused() {
        for bytes in [&b""[..], b".", b"..", b"a/b", b"/", b"a\0b", &[b'x'; 256]] {
            assert!(Name::new(bytes).is_err(), "{bytes:?}");
        }
        for bytes in [&b"/a"[..], b"a/", b"a//b", b"a/../b", b"./a"] {
            assert!(RelPath::parse(bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn a_hostile_name_prints_on_one_line_without_escapes() {
        let shown = Name::new(b"\x1b]0;x\x07\n[error] fake\xe2\x80\xae").unwrap().to_string();
        assert_eq!(shown, "\\x1b]0;x\\x07\\x0a[error] fake\\u{202e}");
    }
}
