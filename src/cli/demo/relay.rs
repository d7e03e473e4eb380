//! A TCP relay between one client and the server that counts what passes: figures from outside the programs that are
//! shown. It can hold everything back for a moment, so that two devices change a file before either hears of the other.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

/// Bytes moved at a time.
const BUFFER_BYTES: usize = 256 * 1024;

/// Forwards to one server until it is dropped.
pub struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    target: SocketAddr,
    /// Both directions.
    bytes: AtomicU64,
    held: Mutex<bool>,
    released: Condvar,
    closed: AtomicBool,
    /// Both ends of every connection, to cut them at the end. A client makes a few in a demo.
    streams: Mutex<Vec<TcpStream>>,
}

impl Relay {
    /// Forwards a free port of this machine to `target`.
    pub fn to(target: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            target,
            bytes: AtomicU64::new(0),
            held: Mutex::new(false),
            released: Condvar::new(),
            closed: AtomicBool::new(false),
            streams: Mutex::default(),
        });
        let accepting = shared.clone();
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if accepting.closed.load(Ordering::SeqCst) {
                    return;
                }
                // A connection that cannot be made is closed by dropping it; the client tries again.
                let _ = accepting.join(client);
            }
        });
        Ok(Self { address, shared })
    }

    /// Where the client connects.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Bytes that passed so far, both ways.
    pub fn bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::SeqCst)
    }

    /// Lets nothing through until [`Relay::release`].
    pub fn hold(&self) {
        *lock(&self.shared.held) = true;
    }

    /// Ends [`Relay::hold`]; what waited goes on in order.
    pub fn release(&self) {
        *lock(&self.shared.held) = false;
        self.shared.released.notify_all();
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::SeqCst);
        for stream in lock(&self.shared.streams).drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        self.release();
        // Wakes the accepting thread so that it ends.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn join(self: &Arc<Self>, client: TcpStream) -> io::Result<()> {
        let server = TcpStream::connect(self.target)?;
        // The programs send whole frames; waiting for more would only add to the times shown.
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        lock(&self.streams).extend([client.try_clone()?, server.try_clone()?]);
        let (client_too, server_too) = (client.try_clone()?, server.try_clone()?);
        let (up, down) = (self.clone(), self.clone());
        thread::spawn(move || up.forward(client, server));
        thread::spawn(move || down.forward(server_too, client_too));
        Ok(())
    }

    fn forward(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut buffer = vec![0; BUFFER_BYTES];
        while let Ok(got) = from.read(&mut buffer) {
            self.wait_until_released();
            let Some(bytes) = buffer.get(..got).filter(|bytes| !bytes.is_empty()) else { break };
            if to.write_all(bytes).is_err() {
                break;
            }
            self.bytes.fetch_add(got as u64, Ordering::SeqCst);
        }
        let _ = (from.shutdown(Shutdown::Read), to.shutdown(Shutdown::Write));
    }

    fn wait_until_released(&self) {
        let mut held = lock(&self.held);
        while *held {
            held = self.released.wait(held).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// The values behind these locks are whole at all times, so a thread that panicked leaves nothing half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
