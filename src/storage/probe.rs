//! Decoders of this room's files, for whoever feeds them any bytes (`fuzz/`). Each begins behind its checksum: bytes by
//! chance never get past one, and whoever can write a store can write those too.

use super::home;
use super::journal::CommitRecord;
use super::pack_file::RecordHeader;
use crate::model::codec;
use crate::model::hash::checksum8;
use bytes::Bytes;
use std::path::Path;

/// True for a commit of a journal.
pub fn commit(bytes: &[u8]) -> bool {
    codec::decode::<CommitRecord>(bytes).is_ok()
}

/// True for the header of a block in a pack (its 56 bytes without the checksum), and the payload that follows.
pub fn pack_record(bytes: &[u8]) -> bool {
    let Some((body, payload)) = bytes.split_first_chunk::<56>() else { return false };
    let header = RecordHeader::parse(&[body.as_slice(), &checksum8(&[body])].concat());
    header.is_some_and(|header| header.open(Bytes::copy_from_slice(payload)).is_some())
}

/// True for a `store.toml`.
pub fn store_file(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(|text| home::parse(text, Path::new("store.toml")).is_ok())
}
