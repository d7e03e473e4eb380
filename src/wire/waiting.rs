//! What the tasks and handles of one client connection share: requests that wait for their answer, and the reason of
//! the end. Its lock is held for a map operation, never across an await.

use super::backlog::Backlog;
use super::connection::Push;
use super::error::{ErrorCode, WireError};
use super::frame::EncodedFrame;
use super::message::Message;
use super::outbox::Outbox;
use super::reply::{PartCheck, WantPart};
use crate::block::{SealedBlock, pack};
use crate::model::BlockHash;
use crate::model::counters::Counters;
use bytes::Bytes;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};

/// Where an answer goes.
#[derive(Debug)]
pub(super) enum Answer {
    /// One message.
    One(oneshot::Sender<Result<Message, Arc<WireError>>>),
    /// Parts with blocks.
    Parts {
        /// Unbounded: bounded by what was asked for, which `check` holds the server to.
        sender: mpsc::UnboundedSender<Result<WantPart, Arc<WireError>>>,
        /// Order and size of the parts.
        check: PartCheck,
    },
    /// A ping of the connection itself.
    Nobody,
}

/// A request under way.
#[derive(Debug)]
pub(super) struct Waiter {
    answer: Answer,
    /// Given back when the answer is here, even if the caller has gone: the server is busy with it until then.
    _in_flight: Option<OwnedSemaphorePermit>,
}

impl Waiter {
    pub(super) const fn new(answer: Answer, in_flight: OwnedSemaphorePermit) -> Self {
        Self { answer, _in_flight: Some(in_flight) }
    }
}

#[derive(Debug)]
struct State {
    waiting: HashMap<u32, Waiter>,
    outbox: Option<Outbox>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    request: AtomicU32,
    pushes: Arc<Backlog<Push>>,
    ended: watch::Sender<Option<Arc<WireError>>>,
    counters: Arc<Counters>,
}

impl Shared {
    pub(super) fn new(outbox: Outbox, pushes: Arc<Backlog<Push>>, counters: Arc<Counters>) -> Self {
        let state = State { waiting: HashMap::new(), outbox: Some(outbox) };
        let (ended, _) = watch::channel(None);
        Self { state: Mutex::new(state), request: AtomicU32::new(1), pushes, ended, counters }
    }

    pub(super) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// A fresh request id. After 2^32 requests ids come again; 0 is never one.
    pub(super) fn next_request(&self) -> u32 {
        match self.request.fetch_add(1, Ordering::Relaxed) {
            0 => self.request.fetch_add(1, Ordering::Relaxed),
            id => id,
        }
    }

    /// Registers and queues a request in one step.
    pub(super) fn send(&self, request: u32, frame: EncodedFrame, waiter: Waiter) -> Result<(), WireError> {
        let mut state = self.lock();
        let Some(outbox) = &state.outbox else { return Err(self.reason()) };
        outbox.send_now(frame)?;
        state.waiting.insert(request, waiter);
        Ok(())
    }

    /// A ping that nobody waits for: its answer is a sign of life.
    pub(super) fn ping(&self) -> Result<(), WireError> {
        let request = self.next_request();
        let frame = EncodedFrame::new(request, &Message::Ping, Vec::new())?;
        self.send(request, frame, Waiter { answer: Answer::Nobody, _in_flight: None })
    }

    /// An answer came.
    pub(super) fn answer(&self, request: u32, message: Message, payload: Bytes) -> Result<(), WireError> {
        let waiter = self.lock().waiting.remove(&request).ok_or(WireError::Unexpected("answer"))?;
        match (waiter.answer, message) {
            (Answer::Nobody, _) => {}
            // A caller that gave up is no fault: the answer is dropped.
            (Answer::One(sender), message) => drop(sender.send(Ok(message))),
            (Answer::Parts { sender, .. }, Message::Failed { code, text }) => {
                let code = ErrorCode::from_u16(code);
                let text = super::message::clean_text(&text);
                drop(sender.send(Err(Arc::new(WireError::Failed { code, text }))));
            }
            (Answer::Parts { sender, mut check }, Message::Blocks { first, present, last }) => {
                let blocks = self.unpack(payload)?;
                drop(sender.send(Ok(check.take(first, &present, last, blocks)?)));
                if !last {
                    let waiter = Waiter { answer: Answer::Parts { sender, check }, ..waiter };
                    self.lock().waiting.insert(request, waiter);
                }
            }
            (Answer::Parts { .. }, other) => return Err(WireError::Unexpected(other.name())),
        }
        Ok(())
    }

    /// A push came.
    pub(super) fn push(&self, message: Message, payload: Bytes) -> Result<(), WireError> {
        match message {
            Message::Changed { prev, head, nodes } => {
                // Roughly what it takes in memory; names and targets are bounded by the frame.
                let bytes = payload.len() + nodes.len() * size_of::<crate::model::Node>();
                let blocks = self.unpack(payload)?;
                self.pushes.offer(Push::Changed { prev, head, nodes, blocks }, bytes);
            }
            Message::Behind => self.pushes.mark_behind(),
            Message::Wanted { hashes } => {
                let bytes = hashes.len() * size_of::<BlockHash>();
                // One that is left out comes again.
                self.pushes.offer(Push::Wanted(hashes), bytes);
            }
            other => return Err(WireError::Unexpected(other.name())),
        }
        Ok(())
    }

    /// Ends the connection: the first reason counts, everyone who waits gets it.
    pub(super) fn lose(&self, error: WireError) {
        if error.is_violation() {
            self.say_goodbye(error.code(), &error.to_string());
        }
        let reason = Arc::new(error);
        let mut first = false;
        self.ended.send_if_modified(|ended| {
            first = ended.is_none();
            if first {
                *ended = Some(reason.clone());
            }
            first
        });
        let (waiting, outbox) = {
            let mut state = self.lock();
            (std::mem::take(&mut state.waiting), state.outbox.take())
        };
        drop(outbox);
        for waiter in waiting.into_values() {
            match waiter.answer {
                Answer::One(sender) => drop(sender.send(Err(reason.clone()))),
                Answer::Parts { sender, .. } => drop(sender.send(Err(reason.clone()))),
                Answer::Nobody => {}
            }
        }
        self.pushes.close();
    }

    /// Queues a goodbye as the last frame.
    pub(super) fn say_goodbye(&self, code: ErrorCode, text: &str) {
        let Some(outbox) = self.lock().outbox.take() else { return };
        if let Ok(frame) = EncodedFrame::new(0, &Message::goodbye(code, text), Vec::new()) {
            // A writer that has ended cannot say it; the stream's end will.
            let _ = outbox.send_now(frame);
        }
    }

    pub(super) async fn closed(&self) -> Arc<WireError> {
        let mut ended = self.ended.subscribe();
        match ended.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_else(|| Arc::new(WireError::Ended)),
            Err(_) => Arc::new(WireError::Ended),
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.ended.borrow().is_some()
    }

    fn reason(&self) -> WireError {
        self.ended.borrow().clone().map_or(WireError::Ended, WireError::Lost)
    }

    fn unpack(&self, payload: Bytes) -> Result<Vec<SealedBlock>, WireError> {
        let blocks = pack::decode(payload)?;
        self.counters.blocks_received.add_len(blocks.len());
        self.counters.block_bytes_received.add(blocks.iter().map(|b| u64::from(b.plain_len)).sum());
        Ok(blocks)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
