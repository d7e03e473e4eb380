//! What black-box tests stand on: real folders on disk, real processes, a counting proxy, a place to run without rights.
//!
//! Nothing here knows how dropblock works inside. A test starts processes, changes folders and compares them.

// Each test program uses its own part of this.
#![allow(dead_code)]

pub mod disk;
pub mod line;
pub mod process;
pub mod proxy;
pub mod sandbox;
pub mod story;
pub mod tree;
pub mod world;

use std::time::Duration;

/// Longest wait for something that should take milliseconds. Only a hang reaches it.
pub const DEADLINE: Duration = Duration::from_secs(90);
/// The same for tests that move hundreds of megabytes or tens of thousands of files.
pub const LONG_DEADLINE: Duration = Duration::from_secs(400);

/// `len` bytes that no compressor can shrink, the same for the same seed (xorshift64*).
pub fn random_bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// At least `len` bytes of text in lines, every line different, the same for the same seed.
pub fn text(seed: u64, len: usize) -> String {
    const WORDS: [&str; 8] = ["river", "stone", "paper", "lamp", "garden", "window", "copper", "winter"];
    let noise = random_bytes(seed, len);
    let mut out = String::with_capacity(len + 80);
    for (line, eight) in noise.chunks(8).enumerate() {
        if out.len() >= len {
            break;
        }
        out.push_str(&format!("{line}:"));
        for byte in eight {
            out.push(' ');
            out.push_str(WORDS[usize::from(byte % 8)]);
        }
        out.push('\n');
    }
    out
}

/// Says on the real stderr that a test could not run here, so that a skip is seen and never taken for a pass. With
/// `DROPBLOCK_SKIPS` the line goes to that file too: `.ci/run` counts them at the end.
pub fn skipped(reason: &str) {
    use std::io::Write;
    let name = std::thread::current().name().unwrap_or("?").to_owned();
    let line = format!("{name}: skipped: {reason}\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
    if let Some(path) = std::env::var_os("DROPBLOCK_SKIPS") {
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
        file.write_all(line.as_bytes()).unwrap();
    }
}
