//! The other end of a [`FrameReader`](super::FrameReader).

use super::{EncodedFrame, WRITE_BYTES_MAX};
use crate::model::counters::Counters;
use crate::wire::error::WireError;
use bytes::Bytes;
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::Arc;
use tokio::io::{AsyncWrite, AsyncWriteExt};

/// Slices in one vectored write; Linux takes up to 1024, but an array of them lies on the stack.
const WRITE_SLICES_MAX: usize = 128;

/// Writes frames, many of them in one system call.
#[derive(Debug)]
pub struct FrameWriter<W> {
    stream: W,
    queue: VecDeque<Bytes>,
    queued_bytes: usize,
    counters: Arc<Counters>,
}

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    /// A writer on an empty queue.
    pub fn new(stream: W, counters: Arc<Counters>) -> Self {
        Self { stream, queue: VecDeque::new(), queued_bytes: 0, counters }
    }

    /// The stream again. What was queued is lost.
    pub fn into_stream(self) -> W {
        self.stream
    }

    /// Queues a frame for the next [`Self::flush`].
    pub fn push(&mut self, frame: &EncodedFrame) {
        self.queue.extend(frame.parts.iter().cloned());
        self.queued_bytes += frame.bytes;
    }

    /// Bytes queued and not written.
    pub const fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    /// Writes one batch: up to [`WRITE_BYTES_MAX`] of what is queued, in one vectored write.
    ///
    /// # Cancel safety
    /// Safe: what the kernel took has left the queue, the rest stays.
    pub async fn write_some(&mut self) -> Result<(), WireError> {
        let mut slices = [IoSlice::new(&[]); WRITE_SLICES_MAX];
        let (mut used, mut bytes) = (0, 0);
        for (slice, part) in slices.iter_mut().zip(&self.queue) {
            let room = WRITE_BYTES_MAX - bytes;
            *slice = IoSlice::new(part.get(..room.min(part.len())).unwrap_or_default());
            used += 1;
            bytes += slice.len();
            if bytes == WRITE_BYTES_MAX {
                break;
            }
        }
        if bytes == 0 {
            return Ok(());
        }
        let written = self.stream.write_vectored(slices.get(..used).unwrap_or_default()).await?;
        if written == 0 {
            return Err(WireError::Io(io::ErrorKind::WriteZero.into()));
        }
        self.drop_written(written);
        Ok(())
    }

    /// Writes everything that is queued.
    pub async fn flush(&mut self) -> Result<(), WireError> {
        while self.queued_bytes > 0 {
            self.write_some().await?;
        }
        self.stream.flush().await?;
        Ok(())
    }

    /// Tells the peer that nothing more follows.
    pub async fn shutdown(&mut self) -> Result<(), WireError> {
        Ok(self.stream.shutdown().await?)
    }

    fn drop_written(&mut self, mut written: usize) {
        self.counters.wire_bytes_sent.add_len(written);
        self.queued_bytes = self.queued_bytes.saturating_sub(written);
        while let Some(part) = self.queue.front_mut() {
            if part.len() > written {
                let _ = part.split_to(written);
                return;
            }
            written -= part.len();
            self.queue.pop_front();
        }
    }
}
