//! What strangers say: knocks, challenges, proofs and invites come back as they were made, and no bytes make a decoder
//! fall over.

use dropblock::auth::{Binding, DeviceKey, Fingerprint, Invite, InviteSecret, Proof};
use dropblock::wire::opening::{self, Challenge, Knock};
use dropblock::wire::{EncodedFrame, Frame, FrameReader, FrameWriter};
use proptest::collection::vec;
use proptest::prelude::*;
use std::sync::Arc;

/// A frame as the other end reads it.
fn read(frame: &EncodedFrame) -> Frame {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
        let mut bytes = Vec::new();
        let mut writer = FrameWriter::new(&mut bytes, Arc::default());
        writer.push(frame);
        writer.flush().await.unwrap();
        FrameReader::new(bytes.as_slice(), Arc::default()).next().await.unwrap().unwrap()
    })
}

proptest! {
    #[test]
    fn knocks_and_challenges_come_back_and_are_no_messages(
        proto in 1..u16::MAX,
        nonce in any::<[u8; 32]>(),
        server in any::<[u8; 32]>(),
        clear in any::<bool>(),
        mac in any::<[u8; 32]>(),
    ) {
        let knock = Knock { proto, nonce };
        let frame = read(&opening::knock(&knock).unwrap());
        prop_assert!(opening::is_knock(&frame) && frame.message().is_err());
        prop_assert_eq!(opening::read_knock(&frame).unwrap(), knock);
        let challenge = Challenge { proto: 1, nonce, server: Fingerprint::from_bytes(server), clear, mac };
        let frame = read(&opening::challenge(&challenge).unwrap());
        prop_assert!(!opening::is_knock(&frame) && frame.message().is_err());
        prop_assert_eq!(opening::read_challenge(&frame).unwrap(), Some(challenge));
    }

    #[test]
    fn no_bytes_are_taken_for_an_opening_or_a_proof_by_chance(
        front in prop_oneof![Just(&b""[..]), Just(&b"dropknok"[..]), Just(&b"dropchal"[..])],
        bytes in vec(any::<u8>(), 0..300),
        method in 0..5u16,
        line in ".{0,200}",
    ) {
        let head = [front, &bytes].concat();
        let frame = read(&EncodedFrame::of_head(0, &head, vec![]).unwrap());
        let _ = opening::read_knock(&frame);
        let _ = opening::read_challenge(&frame);
        prop_assert!(Proof::open(method, &bytes, &Binding::exported([1; 32])).is_err());
        let _ = Invite::parse(&line);
        let _ = Invite::parse(&format!("dropblock://{line}"));
    }

    #[test]
    fn a_proof_holds_for_its_binding_and_breaks_with_any_bit(
        seed in any::<[u8; 32]>(), secret in any::<[u8; 16]>(), binding in any::<[u8; 32]>(), bit in 0..896usize,
    ) {
        let (key, binding) = (DeviceKey::from_seed(seed).unwrap(), Binding::exported(binding));
        let proof = Proof::invited(&InviteSecret::from_bytes(secret), &key, &binding);
        prop_assert!(Proof::open(proof.method, &proof.bytes, &binding).is_ok());
        let mut bent = proof.bytes.clone();
        bent[bit / 8] ^= 1 << (bit % 8);
        // The secret is the server's to look up; everything behind it is signed.
        prop_assert_eq!(Proof::open(proof.method, &bent, &binding).is_ok(), bit < 128);
    }
}
