//! Frames: any way of delivery, every limit, every broken shape.

use super::*;
use crate::model::Seq;
use crate::wire::message::Position;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::ReadBuf;

/// A stream that gives `step` bytes per read.
struct Slow(Bytes, usize);

impl AsyncRead for Slow {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let n = self.1.min(self.0.len()).min(out.remaining());
        out.put_slice(&self.0.split_to(n));
        Poll::Ready(Ok(()))
    }
}

fn counters() -> Arc<Counters> {
    Arc::default()
}

async fn written(frames: &[EncodedFrame]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = FrameWriter::new(&mut out, counters());
    for frame in frames {
        writer.push(frame);
    }
    writer.flush().await.unwrap();
    assert_eq!(writer.queued_bytes(), 0);
    out
}

fn poll() -> Message {
    Message::Poll { after: Position::after(Seq(300)), nodes_max: 7, tombstones_after: Seq::ZERO }
}

fn big(bytes: usize) -> EncodedFrame {
    let payload =
        (0..bytes / 65_536).map(|i| Bytes::from(vec![u8::try_from(i % 251).unwrap(); 65_536])).collect();
    EncodedFrame::new(9, &Message::PutBlocks { count: 1 }, payload).unwrap()
}

#[tokio::test]
async fn frames_come_back_however_the_stream_delivers_them() {
    let frames = [
        EncodedFrame::new(1, &poll(), vec![]).unwrap(),
        big(1 << 20),
        EncodedFrame::new(2, &poll(), vec![]).unwrap(),
    ];
    let bytes = written(&frames).await;
    assert_eq!(bytes.len(), frames.iter().map(EncodedFrame::wire_bytes).sum::<usize>());
    for step in [1, 2, 11, 13, 4096, usize::MAX] {
        let mut reader = FrameReader::new(Slow(bytes.clone().into(), step), counters());
        reader.admit_large_frames();
        let first = reader.next().await.unwrap().unwrap();
        assert_eq!((first.request, first.message().unwrap()), (1, poll()));
        let second = reader.next().await.unwrap().unwrap();
        assert_eq!((second.payload.len(), second.payload[65_536]), (1 << 20, 1));
        assert_eq!(reader.next().await.unwrap().unwrap().request, 2);
        assert!(reader.next().await.unwrap().is_none());
    }
}

#[tokio::test]
async fn an_oversize_length_is_refused_before_its_bytes_and_without_memory() {
    for (announced, large) in
        [(4097u32, false), (u32::MAX, false), (2 * 1024 * 1024 + 1, true), (u32::MAX, true)]
    {
        let mut reader = FrameReader::new(Slow(announced.to_le_bytes().to_vec().into(), 1), counters());
        if large {
            reader.admit_large_frames();
        }
        assert!(matches!(reader.next().await, Err(WireError::FrameTooLarge { .. })));
        assert!(reader.buffer.capacity() <= READ_BYTES_IDLE);
    }
}

#[tokio::test]
async fn lengths_that_contradict_each_other_are_refused() {
    let short = 7u32.to_le_bytes().to_vec();
    let mut head_too_long = 8u32.to_le_bytes().to_vec();
    head_too_long.extend_from_slice(&[0, 0, 0, 0, 1, 0, 0, 0]);
    for bytes in [short, head_too_long] {
        let mut reader = FrameReader::new(Slow(bytes.into(), 3), counters());
        assert!(matches!(reader.next().await, Err(WireError::FrameShape)));
    }
}

#[tokio::test]
async fn a_stream_cut_inside_a_frame_is_truncated_and_between_frames_ended() {
    let bytes = written(&[EncodedFrame::new(1, &poll(), vec![]).unwrap()]).await;
    for cut in 1..bytes.len() {
        let mut reader = FrameReader::new(Slow(bytes[..cut].to_vec().into(), 5), counters());
        assert!(matches!(reader.next().await, Err(WireError::Truncated)), "cut at {cut}");
    }
    assert!(FrameReader::new(Slow(Bytes::new(), 5), counters()).next().await.unwrap().is_none());
}

#[tokio::test]
async fn a_payload_where_none_belongs_is_refused() {
    let bytes = written(&[EncodedFrame::new(1, &poll(), vec![Bytes::from_static(b"x")]).unwrap()]).await;
    let frame = FrameReader::new(Slow(bytes.into(), 5), counters()).next().await.unwrap().unwrap();
    assert!(matches!(frame.message(), Err(WireError::Unexpected("payload"))));
}

#[tokio::test]
async fn small_parts_travel_joined_and_large_ones_untouched() {
    let large = Bytes::from(vec![1; 65_536]);
    let small = Bytes::from_static(b"header");
    let parts = vec![small.clone(), large.clone(), small.clone(), small.clone(), large.clone()];
    let frame = EncodedFrame::new(1, &Message::PutBlocks { count: 2 }, parts).unwrap();
    assert_eq!(frame.parts.len(), 4);
    assert_eq!(frame.parts[1].as_ptr(), large.as_ptr());
    assert_eq!(frame.parts[2], b"headerheader"[..]);
}

#[tokio::test]
async fn the_large_buffer_goes_when_the_bulk_is_over() {
    let mut frames = vec![big(1 << 20)];
    frames.extend((0..3).map(|i| EncodedFrame::new(i, &poll(), vec![]).unwrap()));
    let mut reader = FrameReader::new(Slow(written(&frames).await.into(), 1 << 20), counters());
    reader.admit_large_frames();
    while reader.next().await.unwrap().is_some() {}
    assert!(reader.buffer.capacity() <= 2 * READ_BYTES_IDLE, "{}", reader.buffer.capacity());
}
