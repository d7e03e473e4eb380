//! The sending half of a connection: one task writes, everyone else queues. Frames that wait are put into one vectored
//! write, so a burst of small answers costs one system call and a stream of packs runs at the speed of copying.
//!
//! Bounded by bytes: whoever queues an answer first takes its size from a budget, which the writer gives back.

use super::backlog::{Backlog, Next};
use super::error::WireError;
use super::frame::{EncodedFrame, FrameWriter, WRITE_BYTES_MAX};
use super::message::Message;
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWrite;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// Bytes of answers that may wait for one peer.
pub const QUEUED_BYTES_MAX: usize = 8 * 1024 * 1024;
/// A peer that takes no byte for this long is gone.
pub const STALL_MS_MAX: u64 = 60_000;

/// Where frames are queued. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Outbox {
    queue: mpsc::UnboundedSender<Queued>,
    budget: Arc<Semaphore>,
    /// Of several outboxes.
    shared: Option<Arc<Semaphore>>,
    shrinks: bool,
}

/// The frame and its share of the budget; the queue needs no bound of its own.
#[derive(Debug)]
struct Queued {
    frame: EncodedFrame,
    _budget: Option<(OwnedSemaphorePermit, Option<OwnedSemaphorePermit>)>,
}

/// The writer's end of an [`Outbox`].
#[derive(Debug)]
pub struct Outgoing(mpsc::UnboundedReceiver<Queued>);

/// An outbox and the end that [`write_all`] serves.
pub fn outbox() -> (Outbox, Outgoing) {
    outbox_within(None)
}

/// The same, with a budget besides its own that it shares with other outboxes, bytes; at least [`QUEUED_BYTES_MAX`].
pub fn outbox_within(shared: Option<Arc<Semaphore>>) -> (Outbox, Outgoing) {
    let (queue, outgoing) = mpsc::unbounded_channel();
    let budget = Arc::new(Semaphore::new(QUEUED_BYTES_MAX));
    (Outbox { queue, budget, shared, shrinks: false }, Outgoing(outgoing))
}

impl Outbox {
    /// Makes messages shorter from now on: the peer knows how to read them.
    pub const fn shrinking(mut self, shrinks: bool) -> Self {
        self.shrinks = shrinks;
        self
    }

    /// Encodes and queues a message; waits while too many bytes are queued.
    ///
    /// # Errors
    /// When the message breaks a bound, or the writer has ended.
    pub async fn send(&self, request: u32, message: &Message, payload: Vec<Bytes>) -> Result<(), WireError> {
        let encode = if self.shrinks { EncodedFrame::shrunk } else { EncodedFrame::new };
        self.send_frame(encode(request, message, payload)?).await
    }

    /// Queues a frame; waits while too many bytes are queued.
    ///
    /// # Cancel safety
    /// Safe: the frame is queued whole or not at all.
    pub async fn send_frame(&self, frame: EncodedFrame) -> Result<(), WireError> {
        let permits = u32::try_from(frame.wire_bytes().min(QUEUED_BYTES_MAX)).unwrap_or(u32::MAX);
        let own = self.budget.clone().acquire_many_owned(permits).await.map_err(|_| WireError::Ended)?;
        let shared = match &self.shared {
            Some(shared) => {
                Some(shared.clone().acquire_many_owned(permits).await.map_err(|_| WireError::Ended)?)
            }
            None => None,
        };
        self.queue.send(Queued { frame, _budget: Some((own, shared)) }).map_err(|_| WireError::Ended)
    }

    /// Queues a frame without waiting and outside the budget: for callers that bound their bytes themselves, and for
    /// the few bytes of a goodbye or a ping.
    pub fn send_now(&self, frame: EncodedFrame) -> Result<(), WireError> {
        self.queue.send(Queued { frame, _budget: None }).map_err(|_| WireError::Ended)
    }
}

/// Writes answers and pushes until every [`Outbox`] is gone (everything queued is then written) or the stream fails.
///
/// # Errors
/// When the stream fails or the peer takes nothing for [`STALL_MS_MAX`].
pub async fn write_all<W: AsyncWrite + Unpin>(
    mut writer: FrameWriter<W>,
    mut outgoing: Outgoing,
    pushes: Option<Arc<Backlog<EncodedFrame>>>,
) -> Result<(), WireError> {
    let behind = EncodedFrame::new(0, &Message::Behind, Vec::new())?;
    let mut pushes = pushes;
    loop {
        tokio::select! {
            biased;
            queued = outgoing.0.recv() => match queued {
                Some(queued) => writer.push(&queued.frame),
                None => break,
            },
            push = next_push(pushes.as_deref()) => match push {
                Next::Item(frame) => writer.push(&frame),
                Next::Behind => writer.push(&behind),
                Next::Closed => pushes = None,
            },
        }
        // Whatever else is ready rides in the same write. Pushes first: they are small and someone waits for them.
        while writer.queued_bytes() < WRITE_BYTES_MAX {
            match pushes.as_deref().and_then(Backlog::try_next) {
                Some(Next::Item(frame)) => writer.push(&frame),
                Some(Next::Behind) => writer.push(&behind),
                Some(Next::Closed) => pushes = None,
                None => match outgoing.0.try_recv() {
                    Ok(queued) => writer.push(&queued.frame),
                    Err(_) => break,
                },
            }
        }
        flush(&mut writer).await?;
    }
    flush(&mut writer).await?;
    writer.shutdown().await
}

/// Writes what is queued; each step must make progress in time.
async fn flush<W: AsyncWrite + Unpin>(writer: &mut FrameWriter<W>) -> Result<(), WireError> {
    let stall = Duration::from_millis(STALL_MS_MAX);
    let stalled = |_| WireError::Timeout { what: "progress of a write", ms: STALL_MS_MAX };
    while writer.queued_bytes() > 0 {
        tokio::time::timeout(stall, writer.write_some()).await.map_err(stalled)??;
    }
    tokio::time::timeout(stall, writer.flush()).await.map_err(stalled)?
}

async fn next_push(pushes: Option<&Backlog<EncodedFrame>>) -> Next<EncodedFrame> {
    match pushes {
        Some(pushes) => pushes.next().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use std::task::{Context, Waker};

    fn frame(mib: usize) -> EncodedFrame {
        EncodedFrame::new(1, &Message::Pong, vec![Bytes::from(vec![0; mib << 20])]).unwrap()
    }

    /// True when a frame could be queued without waiting.
    fn goes(outbox: &Outbox, mib: usize) -> bool {
        pin!(outbox.send_frame(frame(mib))).poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn outboxes_that_share_a_budget_hold_no_more_than_that_together_and_each_no_more_than_its_own() {
        let shared = Arc::new(Semaphore::new(QUEUED_BYTES_MAX + (4 << 20)));
        let (one, of_one) = outbox_within(Some(shared.clone()));
        let (two, of_two) = outbox_within(Some(shared.clone()));
        for _ in 0..7 {
            assert!(goes(&one, 1));
        }
        assert!(!goes(&one, 1), "its own is full, but for the heads of frames");
        assert!(goes(&two, 1) && goes(&two, 1) && goes(&two, 1) && goes(&two, 1));
        assert!(!goes(&two, 1), "what both may hold is full");
        two.send_now(frame(1)).unwrap();
        drop(of_one);
        assert!(goes(&two, 1), "what the first one held is free again");
        drop(of_two);
        assert_eq!(shared.available_permits(), QUEUED_BYTES_MAX + (4 << 20));
    }
}
