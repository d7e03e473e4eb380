//! Frames: how messages and block bytes stand in the stream.
//!
//! ```text
//! offset size  field
//! 0      4     frame_len: bytes after this field, u32 LE, 8 ..= limit of the state
//! 4      4     request: u32 LE, chosen by the client and repeated in the answer; 0 = push or handshake
//! 8      4     head_len: u32 LE, at most frame_len - 8
//! 12     n     head: one bincode `Message`
//! 12+n   rest  payload: a pack of sealed blocks, or nothing
//! ```
//! The length is checked before anything is allocated. Head and payload of a long frame are slices of the read buffer, never copies,
//! and the parts of a payload are written from where they are.

mod writer;

pub use writer::FrameWriter;

use super::error::WireError;
use super::message::Message;
use crate::block::seal;
use crate::model::codec::{self, CodecError};
use crate::model::counters::Counters;
use crate::model::limits;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes before the head.
pub const HEADER_BYTES: usize = 12;
/// The part of the header that `frame_len` counts.
const HEADER_BYTES_COUNTED: usize = HEADER_BYTES - 4;
/// One write hands at most this much to the kernel, bytes: larger gains nothing on loopback.
pub const WRITE_BYTES_MAX: usize = 1024 * 1024;
/// Parts of a payload below this size are joined: a slice of a vectored write costs more than copying them.
const JOIN_BYTES_MAX: usize = 4096;
/// Read buffer while frames are small, bytes. A thousand idle connections stay cheap.
const READ_BYTES_IDLE: usize = 16 * 1024;
/// Read buffer while block bytes stream in: the longest pack that senders make, with room for its head.
const READ_BYTES_BULK: usize = limits::PACK_BYTES_TARGET + limits::BLOCK_BYTES_MAX + 64 * 1024;
/// Meanwhile, what is read before the length of a frame is known, bytes. From there on exactly the frame is read, so that
/// nothing of the next one has to be moved to another buffer.
const READ_BYTES_AHEAD: usize = 4 * 1024;
/// Large buffers that are kept to be filled again when the blocks in them are gone: fresh memory costs as much as the
/// copy into it.
const SPARES_MAX: usize = 16;
/// And for how long when nothing comes: many sessions rest at a time.
const SPARES_REST: Duration = Duration::from_secs(1);
/// Shorter messages are mostly hashes and numbers, which do not shrink.
const SHRINK_BYTES_MIN: usize = 192;
/// What a shorter message costs around its bytes: variant, lengths.
const SHRUNK_COST_BYTES: usize = 12;
/// A shorter frame is taken out of the buffer. A slice would keep all of the buffer alive for as long as its request waits,
/// and what a session may have under way counts its bytes only.
const COPY_BYTES_MAX: usize = READ_BYTES_BULK / 4;
/// A frame above this size makes the buffer grow to [`READ_BYTES_BULK`].
const BULK_FRAME_BYTES_MIN: usize = 32 * 1024;

/// One frame as read: the head still encoded, the payload still packed.
#[derive(Debug, Clone)]
pub struct Frame {
    /// Which request it belongs to; 0 for a push.
    pub request: u32,
    head: Bytes,
    /// Block bytes, or nothing.
    pub payload: Bytes,
    /// Its part of what may be read, until something else accounts for it.
    room: Option<Arc<OwnedSemaphorePermit>>,
}

impl Frame {
    /// What this frame holds is accounted for elsewhere from now on.
    pub fn give_back_room(&mut self) {
        self.room = None;
    }

    /// Decodes the head and checks the bounds of the message.
    ///
    /// # Errors
    /// When it is no message, breaks a bound, or carries a payload that it has no use for.
    pub fn message(&self) -> Result<Message, WireError> {
        let message: Message = codec::decode(&self.head)?;
        message.validate()?;
        self.fitting(message)
    }

    /// As [`Self::message`], for a session with the feature `DELTAS`: also a message that was made shorter. And the bytes
    /// of the frame as if it had not been, which is what it makes the receiver hold.
    ///
    /// # Errors
    /// As [`Self::message`]; a length that is not true, or one short message in another.
    pub fn whole_message(&self) -> Result<(Message, usize), WireError> {
        let message: Message = codec::decode(&self.head)?;
        message.validate()?;
        let Message::Shrunk { len, bytes } = message else {
            return Ok((self.fitting(message)?, self.wire_bytes()));
        };
        // Bounded by `validate`.
        let head = seal::grow(&bytes, usize::try_from(len).unwrap_or(0))?;
        let message: Message = codec::decode(&head)?;
        message.validate()?;
        if matches!(message, Message::Shrunk { .. }) {
            return Err(WireError::Unexpected("Shrunk"));
        }
        Ok((self.fitting(message)?, HEADER_BYTES + head.len() + self.payload.len()))
    }

    fn fitting(&self, message: Message) -> Result<Message, WireError> {
        if self.payload.is_empty() || message.may_carry_blocks() {
            Ok(message)
        } else {
            Err(WireError::Unexpected("payload"))
        }
    }

    /// The head as it came: for the frames before a hello, which are no messages.
    pub const fn head(&self) -> &Bytes {
        &self.head
    }

    /// Bytes in the stream, header included.
    pub fn wire_bytes(&self) -> usize {
        HEADER_BYTES + self.head.len() + self.payload.len()
    }
}

/// One frame ready to be written, any number of times: cloning it copies no bytes.
#[derive(Debug, Clone)]
pub struct EncodedFrame {
    parts: Arc<[Bytes]>,
    bytes: usize,
    /// As if the message had not been made shorter.
    counted_bytes: usize,
}

impl EncodedFrame {
    /// Encodes a message and the parts of its payload, after the same checks that the receiver makes.
    ///
    /// # Errors
    /// When a bound is broken, or the frame would be larger than [`limits::FRAME_BYTES_MAX`], or its message count for more
    /// than that where it is decoded.
    pub fn new(request: u32, message: &Message, payload: Vec<Bytes>) -> Result<Self, WireError> {
        message.validate()?;
        Self::of_head(request, &encode_head(message)?, payload)
    }

    /// As [`Self::new`], with the message made shorter when that gains something: for a session with the feature `DELTAS`.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn shrunk(request: u32, message: &Message, payload: Vec<Bytes>) -> Result<Self, WireError> {
        message.validate()?;
        let head = encode_head(message)?;
        if head.len() >= SHRINK_BYTES_MIN
            && let Some(bytes) = seal::shrink(&head)
            && bytes.len() + SHRUNK_COST_BYTES < head.len()
            && let Ok(len) = u32::try_from(head.len())
        {
            let shrunk = Self::new(request, &Message::Shrunk { len, bytes: bytes.to_vec() }, payload)?;
            let payload_bytes = shrunk.bytes.saturating_sub(HEADER_BYTES + bytes.len());
            return Ok(Self { counted_bytes: HEADER_BYTES + head.len() + payload_bytes, ..shrunk });
        }
        Self::of_head(request, &head, payload)
    }

    /// A frame around a head that is no message.
    ///
    /// # Errors
    /// When it would be larger than [`limits::FRAME_BYTES_MAX`].
    pub fn of_head(request: u32, head: &[u8], payload: Vec<Bytes>) -> Result<Self, WireError> {
        let payload_bytes: usize = payload.iter().map(Bytes::len).sum();
        let frame_bytes = HEADER_BYTES_COUNTED + head.len() + payload_bytes;
        let too_large =
            || WireError::FrameTooLarge { bytes: frame_bytes as u64, bytes_max: limits::FRAME_BYTES_MAX };
        if frame_bytes > limits::FRAME_BYTES_MAX {
            return Err(too_large());
        }
        let frame_len = u32::try_from(frame_bytes).map_err(|_| too_large())?;
        let head_len = u32::try_from(head.len()).map_err(|_| too_large())?;
        let mut small = BytesMut::with_capacity(HEADER_BYTES + head.len());
        small.extend_from_slice(&frame_len.to_le_bytes());
        small.extend_from_slice(&request.to_le_bytes());
        small.extend_from_slice(&head_len.to_le_bytes());
        small.extend_from_slice(head);
        let bytes = frame_bytes + 4;
        Ok(Self { parts: join_small(small, payload).into(), bytes, counted_bytes: bytes })
    }

    /// Bytes in the stream, header included.
    pub const fn wire_bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes that it counts against the limit of what is under way: as if the message had not been made shorter.
    pub const fn counted_bytes(&self) -> usize {
        self.counted_bytes
    }
}

/// What a receiver would not decode fits no frame either: whoever makes pages makes a smaller one.
fn encode_head(message: &Message) -> Result<Vec<u8>, WireError> {
    codec::encode(message).map_err(|error| match error {
        CodecError::TooLarge(bytes) => {
            WireError::FrameTooLarge { bytes: bytes as u64, bytes_max: limits::FRAME_BYTES_MAX }
        }
        error => error.into(),
    })
}

/// Appends runs of small parts to one buffer and leaves large parts where they are.
fn join_small(mut small: BytesMut, payload: Vec<Bytes>) -> Vec<Bytes> {
    let mut parts = Vec::with_capacity(payload.len().min(64) + 1);
    for part in payload {
        if part.len() < JOIN_BYTES_MAX {
            small.extend_from_slice(&part);
            continue;
        }
        if !small.is_empty() {
            parts.push(small.split().freeze());
        }
        parts.push(part);
    }
    if !small.is_empty() {
        parts.push(small.freeze());
    }
    parts
}

/// Cuts a stream of bytes into frames.
#[derive(Debug)]
pub struct FrameReader<R> {
    stream: R,
    buffer: BytesMut,
    /// Empty views of large buffers that frames may still lie in.
    spares: Vec<BytesMut>,
    frame_bytes_max: usize,
    bulk: bool,
    bytes_read: u64,
    /// Bytes of large frames that may be read, over several readers.
    room: Option<Arc<Semaphore>>,
    /// For the frame that is being read.
    held: Option<OwnedSemaphorePermit>,
    counters: Arc<Counters>,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// A reader in the state before the handshake: frames up to [`limits::FRAME_BYTES_MAX_UNAUTHENTICATED`].
    pub fn new(stream: R, counters: Arc<Counters>) -> Self {
        let frame_bytes_max = limits::FRAME_BYTES_MAX_UNAUTHENTICATED;
        let (buffer, spares) = (BytesMut::new(), Vec::new());
        let (bulk, bytes_read, room, held) = (false, 0, None, None);
        Self { stream, buffer, spares, frame_bytes_max, bulk, bytes_read, room, held, counters }
    }

    /// A reader that begins with bytes which were read from the stream to see what it is.
    pub fn after(stream: R, first: &[u8], counters: Arc<Counters>) -> Self {
        let mut reader = Self::new(stream, counters);
        reader.counters.wire_bytes_received.add_len(first.len());
        reader.buffer.extend_from_slice(first);
        reader
    }

    /// The stream again, for whoever reads on without this reader.
    ///
    /// # Errors
    /// When the peer has said more than it was asked for.
    pub fn into_stream(self) -> Result<R, WireError> {
        if self.buffer.is_empty() { Ok(self.stream) } else { Err(WireError::Unexpected("bytes")) }
    }

    /// The handshake is complete: frames up to [`limits::FRAME_BYTES_MAX`].
    pub const fn admit_large_frames(&mut self) {
        self.frame_bytes_max = limits::FRAME_BYTES_MAX;
    }

    /// Takes the bytes of large frames from here, at least [`limits::FRAME_BYTES_MAX`], before they are read. A frame keeps
    /// them until it [gives them back](Frame::give_back_room).
    pub fn read_within(&mut self, room: Arc<Semaphore>) {
        self.room = Some(room);
    }

    /// Bytes read so far: it moves while a large frame crosses a slow link.
    pub const fn bytes_read(&self) -> u64 {
        self.bytes_read
    }

    /// Reads and forgets what still comes, so that closing does not reset the stream while the peer's last words, or
    /// ours, are on their way.
    pub async fn discard_rest(&mut self, bytes_max: usize) {
        let mut discarded = 0;
        while discarded < bytes_max {
            self.buffer.clear();
            self.buffer.reserve(READ_BYTES_IDLE);
            match self.stream.read_buf(&mut self.buffer).await {
                Ok(read) if read > 0 => discarded += read,
                _ => return,
            }
        }
    }

    /// The next frame; `None` when the stream ended between two frames.
    ///
    /// # Cancel safety
    /// Safe: bytes that were read stay in the buffer.
    pub async fn next(&mut self) -> Result<Option<Frame>, WireError> {
        loop {
            let missing = match self.cut()? {
                Cut::Frame(frame) => return Ok(Some(frame)),
                Cut::Missing(bytes) => bytes,
            };
            if let Some(room) =
                self.room.as_ref().filter(|_| missing >= BULK_FRAME_BYTES_MIN && self.held.is_none())
            {
                let permits = u32::try_from(missing).unwrap_or(u32::MAX);
                self.held =
                    Some(room.clone().acquire_many_owned(permits).await.map_err(|_| WireError::Ended)?);
            }
            self.make_room(missing);
            let Some(read) = self.read_some(missing).await? else { continue };
            self.counters.wire_bytes_received.add_len(read);
            self.bytes_read += read as u64;
            if read == 0 {
                return if self.buffer.is_empty() { Ok(None) } else { Err(WireError::Truncated) };
            }
        }
    }

    /// Reads what there is; `None` when nothing came for a while, and what was kept for more is given back.
    async fn read_some(&mut self, missing: usize) -> Result<Option<usize>, WireError> {
        let read_max = if self.bulk { missing.max(READ_BYTES_AHEAD) } else { usize::MAX };
        let mut into = (&mut self.buffer).limit(read_max);
        let mut reading = pin!(self.stream.read_buf(&mut into));
        if self.spares.is_empty() {
            return Ok(Some(reading.await?));
        }
        // No timer while bytes are coming.
        if let Poll::Ready(read) = poll_fn(|context| Poll::Ready(reading.as_mut().poll(context))).await {
            return Ok(Some(read?));
        }
        match tokio::time::timeout(SPARES_REST, reading).await {
            Ok(read) => Ok(Some(read?)),
            Err(_) => {
                self.spares = Vec::new();
                self.bulk &= !self.buffer.is_empty();
                Ok(None)
            }
        }
    }

    /// Takes a whole frame off the buffer, or says how many bytes it lacks at least.
    fn cut(&mut self) -> Result<Cut, WireError> {
        let Some((len_bytes, after)) = self.buffer.split_first_chunk::<4>() else {
            return Ok(Cut::Missing(HEADER_BYTES));
        };
        let announced = u32::from_le_bytes(*len_bytes);
        let frame_len = usize::try_from(announced).unwrap_or(usize::MAX);
        if frame_len > self.frame_bytes_max {
            return Err(WireError::FrameTooLarge {
                bytes: announced.into(),
                bytes_max: self.frame_bytes_max,
            });
        }
        if frame_len < HEADER_BYTES_COUNTED {
            return Err(WireError::FrameShape);
        }
        if after.len() < frame_len {
            return Ok(Cut::Missing(frame_len - after.len()));
        }
        let mut frame = if 4 + frame_len < COPY_BYTES_MAX {
            let copy = Bytes::copy_from_slice(self.buffer.get(..4 + frame_len).unwrap_or_default());
            self.buffer.advance(4 + frame_len);
            copy
        } else {
            self.buffer.split_to(4 + frame_len).freeze()
        };
        self.bulk = frame_len >= BULK_FRAME_BYTES_MIN;
        let header = frame.split_to(HEADER_BYTES);
        let (Some(request), Some(head_len)) = (u32_at(&header, 4), u32_at(&header, 8)) else {
            return Err(WireError::FrameShape);
        };
        let head_len = usize::try_from(head_len).unwrap_or(usize::MAX);
        if head_len > frame.len() {
            return Err(WireError::FrameShape);
        }
        let head = frame.split_to(head_len);
        Ok(Cut::Frame(Frame { request, head, payload: frame, room: self.held.take().map(Arc::new) }))
    }

    /// Room for the rest of the frame and for what follows it: many frames per read.
    fn make_room(&mut self, missing: usize) {
        let spare = self.buffer.capacity() - self.buffer.len();
        if self.buffer.is_empty() && !self.bulk && spare > READ_BYTES_IDLE {
            // The bulk is over: give the large buffers back.
            self.buffer = BytesMut::new();
            self.spares = Vec::new();
        }
        if spare >= missing && spare >= READ_BYTES_IDLE / 2 {
            return;
        }
        if self.bulk || missing >= BULK_FRAME_BYTES_MIN {
            self.change_buffer(missing);
        } else {
            self.buffer.reserve(missing.max(READ_BYTES_IDLE));
        }
    }

    /// Goes on in a large buffer that nothing lies in any more, if there is one.
    fn change_buffer(&mut self, missing: usize) {
        let bytes = (self.buffer.len() + missing).max(READ_BYTES_BULK);
        let free = self.spares.iter_mut().position(|spare| spare.try_reclaim(bytes));
        let mut next = match free {
            Some(free) => self.spares.swap_remove(free),
            None => BytesMut::with_capacity(bytes),
        };
        next.extend_from_slice(&self.buffer);
        let mut old = std::mem::replace(&mut self.buffer, next);
        if self.spares.len() < SPARES_MAX && old.capacity() > 0 {
            old.clear();
            self.spares.push(old);
        }
    }
}

enum Cut {
    Frame(Frame),
    Missing(usize),
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk::<4>().map(|b| u32::from_le_bytes(*b))
}

#[cfg(test)]
mod tests;
