//! Bytes to test and measure with, the same on every machine. Another implementation can make them with BLAKE3 alone.

use dropblock::model::hash::expand;

/// `len` bytes of the extendable output of BLAKE3 keyed with 32 times `seed`, over the message of 8 zero bytes.
pub fn random(len: usize, seed: u8) -> Vec<u8> {
    let mut bytes = vec![0; len];
    expand(&[seed; 32], 0, &mut bytes);
    bytes
}

/// Lines of words, each word chosen by a random byte: word `byte % 16`, a line break after every 12th word, else a blank.
pub fn text(len: usize, seed: u8) -> Vec<u8> {
    const WORDS: [&str; 16] = [
        "a", "block", "is", "bytes", "whose", "hash", "known", "to", "be", "true", "and", "journal", "names",
        "every", "commit", "folder",
    ];
    let mut out = Vec::with_capacity(len + 8);
    for (i, byte) in random(len / 2 + 1, seed).into_iter().enumerate() {
        out.extend_from_slice(WORDS.get(usize::from(byte % 16)).copied().unwrap_or_default().as_bytes());
        out.push(if i % 12 == 11 { b'\n' } else { b' ' });
    }
    out.truncate(len);
    out
}
