//! A TCP proxy that counts bytes, and can cut every connection once enough of them have passed.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// Forwards to one server until it is dropped.
pub struct Proxy {
    /// Where clients connect.
    pub addr: SocketAddr,
    state: Arc<State>,
}

struct State {
    target: SocketAddr,
    up: AtomicU64,
    down: AtomicU64,
    /// Connections are cut when `up + down` reaches this.
    cut_at: AtomicU64,
    closed: AtomicBool,
    /// What the server says is not passed on.
    deaf: AtomicBool,
    /// Bytes per second each way; 0: as fast as it goes.
    pace: AtomicU64,
    streams: Mutex<Vec<TcpStream>>,
}

impl Proxy {
    /// Forwards a free port to `target`.
    pub fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let addr = listener.local_addr().unwrap();
        let state = Arc::new(State {
            target,
            up: AtomicU64::new(0),
            down: AtomicU64::new(0),
            cut_at: AtomicU64::new(u64::MAX),
            closed: AtomicBool::new(false),
            deaf: AtomicBool::new(false),
            pace: AtomicU64::new(0),
            streams: Mutex::new(Vec::new()),
        });
        let accepting = Arc::clone(&state);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if accepting.closed.load(Ordering::SeqCst) {
                    return;
                }
                accepting.join(client);
            }
        });
        Self { addr, state }
    }

    /// Bytes from client to server so far.
    pub fn up(&self) -> u64 {
        self.state.up.load(Ordering::SeqCst)
    }

    /// Bytes from server to client so far.
    pub fn down(&self) -> u64 {
        self.state.down.load(Ordering::SeqCst)
    }

    /// Bytes both ways so far.
    pub fn bytes(&self) -> u64 {
        self.up() + self.down()
    }

    /// Waits until nothing has passed for a while, then returns the bytes both ways.
    pub fn bytes_when_quiet(&self) -> u64 {
        loop {
            let before = self.bytes();
            thread::sleep(Duration::from_millis(300));
            if self.bytes() == before {
                return before;
            }
        }
    }

    /// Cuts all connections, and refuses new ones, once `bytes` more have passed.
    pub fn cut_after(&self, bytes: u64) {
        self.state.cut_at.store(self.bytes() + bytes, Ordering::SeqCst);
    }

    /// True when the cut has happened.
    pub fn is_cut(&self) -> bool {
        self.bytes() >= self.state.cut_at.load(Ordering::SeqCst)
    }

    /// Lets connections through again.
    pub fn mend(&self) {
        self.state.cut_at.store(u64::MAX, Ordering::SeqCst);
    }

    /// Keeps what the server says to itself, or no more. What was kept is gone.
    pub fn deaf(&self, deaf: bool) {
        self.state.deaf.store(deaf, Ordering::SeqCst);
    }

    /// Passes at most so many bytes a second each way from now on.
    pub fn slow_down(&self, bytes_per_second: u64) {
        self.state.pace.store(bytes_per_second, Ordering::SeqCst);
    }

    /// Cuts the connections that are open now; new ones are let through.
    pub fn cut_now(&self) {
        self.state.cut();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.state.closed.store(true, Ordering::SeqCst);
        self.state.cut();
        // Wakes the accepting thread so that it can end.
        let _ = TcpStream::connect(self.addr);
    }
}

impl State {
    fn join(self: &Arc<Self>, client: TcpStream) {
        let passed = self.up.load(Ordering::SeqCst) + self.down.load(Ordering::SeqCst);
        if passed >= self.cut_at.load(Ordering::SeqCst) {
            return;
        }
        let Ok(server) = TcpStream::connect(self.target) else { return };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let (client_too, server_too) = (client.try_clone().unwrap(), server.try_clone().unwrap());
        {
            let mut streams = self.streams.lock().unwrap();
            streams.push(client.try_clone().unwrap());
            streams.push(server.try_clone().unwrap());
        }
        let (up, down) = (Arc::clone(self), Arc::clone(self));
        thread::spawn(move || up.forward(client, server, &up.up));
        thread::spawn(move || down.forward(server_too, client_too, &down.down));
    }

    fn forward(&self, mut from: TcpStream, mut to: TcpStream, count: &AtomicU64) {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(got) = from.read(&mut buffer) {
            let kept = std::ptr::eq(count, &self.down) && self.deaf.load(Ordering::SeqCst);
            if got == 0 || !kept && to.write_all(&buffer[..got]).is_err() {
                break;
            }
            count.fetch_add(got as u64, Ordering::SeqCst);
            if let Some(micros) = (got as u64 * 1_000_000).checked_div(self.pace.load(Ordering::SeqCst)) {
                thread::sleep(Duration::from_micros(micros));
            }
            let passed = self.up.load(Ordering::SeqCst) + self.down.load(Ordering::SeqCst);
            if passed >= self.cut_at.load(Ordering::SeqCst) {
                self.cut();
                break;
            }
        }
        let _ = (from.shutdown(Shutdown::Read), to.shutdown(Shutdown::Write));
    }

    fn cut(&self) {
        for stream in self.streams.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}
