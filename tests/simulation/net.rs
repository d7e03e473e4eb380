//! The network: one line per client, on which bytes take time, stand still, vanish or break off. Order holds within a
//! stream, as TCP promises, and between streams nothing does.

use super::dice::{Dice, Trace, hash};
use dropblock::server::{Accept, Accepted};
use dropblock::wire::WireError;
use dropblock::wire::tcp::{Dial, Dialing, Link};
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep};

/// Bytes that fit on the way; then the writer waits.
const WINDOW_BYTES: usize = 256 * 1024;
/// How long a client waits for a server that does not answer.
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);

/// Towards the server, or from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Up,
    Down,
}

/// All lines.
#[derive(Clone)]
pub struct Network(Arc<Mutex<State>>);

struct State {
    lines: Vec<Line>,
    server: Option<mpsc::UnboundedSender<Accepted<Reader, Writer>>>,
    dice: Dice,
    trace: Trace,
    pub frames: u64,
}

#[derive(Default)]
struct Line {
    blocked_up: bool,
    blocked_down: bool,
    slow_ms: u64,
    pipes: Vec<Arc<Mutex<Pipe>>>,
}

/// One direction of one stream.
struct Pipe {
    way: Way,
    queue: VecDeque<(Instant, Vec<u8>)>,
    bytes: usize,
    last: Instant,
    /// The writer has said its last word.
    ended: bool,
    broken: bool,
    /// Whatever is written from now on vanishes; what is on its way arrives.
    sealed: bool,
    /// Everything vanishes.
    hole: bool,
    blocked: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Pipe {
    fn wake(&mut self) {
        for waker in [self.reader.take(), self.writer.take()].into_iter().flatten() {
            waker.wake();
        }
    }
}

impl Network {
    pub fn new(clients: usize, dice: Dice, trace: Trace) -> Self {
        let lines = (0..clients).map(|_| Line::default()).collect();
        Self(Arc::new(Mutex::new(State { lines, server: None, dice, trace, frames: 0 })))
    }

    /// The server listens from now on.
    pub fn listen(&self) -> Listener {
        let (sender, inbox) = mpsc::unbounded_channel();
        self.0.lock().unwrap().server = Some(sender);
        Listener(inbox)
    }

    /// The server is gone: nobody listens, every stream breaks.
    pub fn server_gone(&self) {
        let lines = {
            let mut state = self.0.lock().unwrap();
            state.server = None;
            state.lines.len()
        };
        (0..lines).for_each(|client| self.break_off(client));
    }

    /// Bytes of a line stand still, on the ways that are named.
    pub fn block(&self, client: usize, up: bool, down: bool) {
        let mut state = self.0.lock().unwrap();
        let line = &mut state.lines[client];
        (line.blocked_up, line.blocked_down) = (up, down);
        for pipe in &line.pipes {
            let mut pipe = pipe.lock().unwrap();
            pipe.blocked = if pipe.way == Way::Up { up } else { down };
            pipe.wake();
        }
    }

    /// Everything on a line takes this much longer.
    pub fn slow(&self, client: usize, ms: u64) {
        self.0.lock().unwrap().lines[client].slow_ms = ms;
    }

    /// Streams of a line break in the middle of whatever they carry.
    pub fn break_off(&self, client: usize) {
        let pipes = std::mem::take(&mut self.0.lock().unwrap().lines[client].pipes);
        for pipe in pipes {
            let mut pipe = pipe.lock().unwrap();
            pipe.broken = true;
            pipe.wake();
        }
    }

    /// Streams of a line swallow everything, and nobody is told.
    pub fn swallow(&self, client: usize) {
        let state = self.0.lock().unwrap();
        for pipe in &state.lines[client].pipes {
            let mut pipe = pipe.lock().unwrap();
            pipe.hole = true;
            pipe.queue.clear();
            pipe.bytes = 0;
        }
    }

    /// The client's machine is gone. What it sent is still on its way.
    pub fn client_gone(&self, client: usize, power: bool) {
        let pipes = std::mem::take(&mut self.0.lock().unwrap().lines[client].pipes);
        for pipe in pipes {
            let mut pipe = pipe.lock().unwrap();
            match (pipe.way, power) {
                (Way::Up, false) => (pipe.ended, pipe.sealed) = (true, true),
                // Nobody answers any more: the server finds out by silence.
                (Way::Up, true) => pipe.hole = true,
                (Way::Down, _) => (pipe.broken, pipe.hole) = (!power, true),
            }
            pipe.wake();
        }
    }

    pub fn heal(&self) {
        let lines = self.0.lock().unwrap().lines.len();
        for client in 0..lines {
            self.block(client, false, false);
            self.slow(client, 0);
            let half_open = {
                let state = self.0.lock().unwrap();
                state.lines[client].pipes.iter().any(|pipe| pipe.lock().unwrap().hole)
            };
            if half_open {
                self.break_off(client);
            }
        }
    }

    pub fn frames(&self) -> u64 {
        self.0.lock().unwrap().frames
    }

    fn pipe(&self, client: usize, way: Way) -> (Reader, Writer) {
        let mut state = self.0.lock().unwrap();
        let line = &mut state.lines[client];
        let blocked = if way == Way::Up { line.blocked_up } else { line.blocked_down };
        let pipe = Arc::new(Mutex::new(Pipe {
            way,
            queue: VecDeque::new(),
            bytes: 0,
            last: Instant::now(),
            ended: false,
            broken: false,
            sealed: false,
            hole: false,
            blocked,
            reader: None,
            writer: None,
        }));
        line.pipes.push(pipe.clone());
        let end = End { net: self.clone(), client, pipe };
        (Reader { end: end.clone(), sleep: Box::pin(tokio::time::sleep(Duration::ZERO)) }, Writer(end))
    }

    /// How long the next bytes take.
    fn delay(&self, client: usize) -> Duration {
        let mut state = self.0.lock().unwrap();
        let slow_ms = state.lines[client].slow_ms;
        let usual = state.dice.below(3000);
        let extra = if slow_ms > 0 { state.dice.below(slow_ms * 1000) } else { 0 };
        Duration::from_micros(100 + usual + extra)
    }

    fn delivered(&self, client: usize, way: Way, bytes: &[u8]) {
        let mut state = self.0.lock().unwrap();
        state.frames += 1;
        state.trace.mix(hash(bytes) ^ (client as u64) << 1 ^ u64::from(way == Way::Up));
    }
}

#[derive(Clone)]
struct End {
    net: Network,
    client: usize,
    pipe: Arc<Mutex<Pipe>>,
}

/// What is read on one end.
pub struct Reader {
    end: End,
    sleep: Pin<Box<Sleep>>,
}

/// What is written on one end.
pub struct Writer(End);

impl AsyncRead for Reader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let mut pipe = this.end.pipe.lock().unwrap();
        if pipe.broken {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        pipe.reader = Some(cx.waker().clone());
        if pipe.blocked {
            return Poll::Pending;
        }
        let Some((at, _)) = pipe.queue.front() else {
            return if pipe.ended { Poll::Ready(Ok(())) } else { Poll::Pending };
        };
        let at = *at;
        if at > Instant::now() {
            drop(pipe);
            this.sleep.as_mut().reset(at);
            return match this.sleep.as_mut().poll(cx) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(()) => {
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
            };
        }
        let (at, mut bytes) = pipe.queue.pop_front().unwrap();
        let rest = bytes.split_off(bytes.len().min(buf.remaining()));
        if !rest.is_empty() {
            pipe.queue.push_front((at, rest));
        }
        pipe.bytes -= bytes.len();
        if let Some(writer) = pipe.writer.take() {
            writer.wake();
        }
        let way = pipe.way;
        drop(pipe);
        this.end.net.delivered(this.end.client, way, &bytes);
        buf.put_slice(&bytes);
        Poll::Ready(Ok(()))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut pipe = self.end.pipe.lock().unwrap();
        // Nobody reads on: the next write of the peer finds out.
        if !pipe.hole {
            pipe.broken = true;
        }
        pipe.wake();
    }
}

impl AsyncWrite for Writer {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let delay = self.0.net.delay(self.0.client);
        let mut pipe = self.0.pipe.lock().unwrap();
        if pipe.broken {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if pipe.hole || pipe.sealed {
            return Poll::Ready(Ok(bytes.len()));
        }
        if pipe.bytes >= WINDOW_BYTES {
            pipe.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let len = bytes.len().min(64 * 1024);
        let at = (Instant::now() + delay).max(pipe.last);
        pipe.last = at;
        pipe.bytes += len;
        pipe.queue.push_back((at, bytes[..len].to_vec()));
        if let Some(reader) = pipe.reader.take() {
            reader.wake();
        }
        Poll::Ready(Ok(len))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.finish();
        Poll::Ready(Ok(()))
    }
}

impl End {
    fn finish(&self) {
        let mut pipe = self.pipe.lock().unwrap();
        if !pipe.hole {
            pipe.ended = true;
        }
        pipe.wake();
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.0.finish();
    }
}

/// Where the server's streams come from.
pub struct Listener(mpsc::UnboundedReceiver<Accepted<Reader, Writer>>);

impl Accept for Listener {
    type Reader = Reader;
    type Writer = Writer;

    async fn accept(&mut self) -> io::Result<Option<Accepted<Reader, Writer>>> {
        match self.0.recv().await {
            Some(stream) => Ok(Some(stream)),
            None => std::future::pending().await,
        }
    }
}

/// How one client reaches the server.
pub struct Dialer {
    pub net: Network,
    pub client: usize,
}

impl Dial for Dialer {
    fn dial<'a>(&'a self, _: &'a str) -> Dialing<'a> {
        Box::pin(async move {
            tokio::time::sleep(self.net.delay(self.client)).await;
            let blocked = {
                let state = self.net.0.lock().unwrap();
                state.lines[self.client].blocked_up || state.lines[self.client].blocked_down
            };
            if blocked {
                tokio::time::sleep(DIAL_TIMEOUT).await;
                return Err(WireError::Io(io::ErrorKind::TimedOut.into()));
            }
            let server = self.net.0.lock().unwrap().server.clone();
            let Some(server) = server else {
                return Err(WireError::Io(io::ErrorKind::ConnectionRefused.into()));
            };
            let (from_client, to_server) = self.net.pipe(self.client, Way::Up);
            let (from_server, to_client) = self.net.pipe(self.client, Way::Down);
            let peer = ([10, 0, 0, 1], 1000 + u16::try_from(self.client).unwrap()).into();
            let local = ([10, 0, 0, 9], 7420).into();
            let accepted = Accepted { peer, local, reader: from_client, writer: to_client };
            server.send(accepted).map_err(|_| WireError::Io(io::ErrorKind::ConnectionRefused.into()))?;
            // Nobody else can reach this link: nobody proves anything on it.
            Ok(Link::open(from_server, to_server))
        })
    }
}
