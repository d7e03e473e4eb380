//! `dropblock serve`: the hub.

use super::failure::{Exit, Failure, causes};
use super::keyring::TlsArg;
use super::text::{self, Voice};
use super::wall::{self, May};
use super::{credentials, identity};
use crate::auth::{Fingerprint, Secret};
use crate::folder::fs::{open_files_max, raise_open_files};
use crate::folder::{self, ShownPath};
use crate::server::{self, Access, Config, Devices, Gate, Tended, gate, porch};
use crate::storage::{Problem, StorageError, Store, StoreOptions};
use rustix::net::{self, AddressFamily, SocketFlags, SocketType};
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Run the hub: keep the store and serve clients.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder of the store; made when it is missing
    #[arg(long, value_name = "FOLDER", env = "DROPBLOCK_STORE")]
    store: PathBuf,

    /// Address to listen on; port 0 picks a free one
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:7420", value_parser = place, env = "DROPBLOCK_LISTEN")]
    listen: String,

    /// How long replaced and deleted versions stay restorable, for example 30d; 0 keeps none. It is remembered in the
    /// store [default: what was said last, or 30d]
    #[arg(long, value_name = "DURATION", value_parser = super::when::duration_ms, env = "DROPBLOCK_KEEP")]
    keep: Option<u64>,

    /// Everything stored is read again once in this time, in small steps; 0 never does
    #[arg(long, value_name = "TIME", default_value = "7d", value_parser = super::when::duration_ms, env = "DROPBLOCK_SCRUB")]
    scrub: u64,

    /// When to encrypt
    #[arg(long, value_name = "WHEN", default_value = "auto", env = "DROPBLOCK_TLS")]
    tls: TlsArg,
}

/// Between two looks whether the store is still there.
const STORE_LOOK: Duration = Duration::from_secs(1);

/// The server's credential is left anew this often, should somebody have cleared the place.
const LEAVE: Duration = Duration::from_secs(60);

/// Who comes while the store is being opened waits so long for an answer; clients wait ten seconds.
const PATIENCE: Duration = Duration::from_secs(3);

/// Connections at most; fewer where the system does not let this process have that many files open.
const CONNECTIONS_MAX: u64 = 16_384;
/// What is open beside connections: packs, index, journals, and strangers who have not said who they are.
const FILES_BESIDE: u64 = 1024;

/// How long a port that is in use is waited for.
const PORT_PATIENCE: Duration = Duration::from_secs(1);
/// Connections that may wait to be accepted.
const CONNECTIONS_WAIT: i32 = 1024;

pub fn run(args: Args, voice: Voice) -> Result<Exit, Failure> {
    // First the port: nothing is left behind when it is taken.
    let socket = take_port(&args.listen).map_err(|error| no_port(&args, &error))?;
    refuse_inside_ours(&args.store)?;
    // Whatever is written from here on is for this user alone.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    wall_in(&args.store);
    raise_open_files(CONNECTIONS_MAX + FILES_BESIDE);
    let runtime = super::runtime()?;
    let run = runtime.block_on(open_and_serve(&args, socket, voice));
    // A store that is still being opened is not waited for: it may take minutes, and can be left at any point.
    runtime.shutdown_timeout(if matches!(run, Ok(None)) { Duration::ZERO } else { Duration::from_secs(2) });
    if let Some((store, served)) = run? {
        let closed = store.close().map_err(|error| Failure::general(&error));
        served?;
        closed?;
    }
    // Not before the store is closed: its last flush can fail.
    voice.say("stopped");
    Ok(Exit::Ok)
}

fn no_port(args: &Args, error: &std::io::Error) -> Failure {
    Failure::new(Exit::General, format!("cannot listen on {}: {error}", args.listen))
}

/// Checks the form only: what a name leads to is asked when it is bound.
fn place(text: &str) -> Result<String, String> {
    let port =
        text.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse::<u16>());
    match port {
        Some(Ok(_)) => Ok(text.to_owned()),
        _ => Err("ADDR:PORT, for example 127.0.0.1:7420 or localhost:0".to_owned()),
    }
}

/// A server that was killed an instant ago may still hold its port, as it may its lock.
fn take_port(name: &str) -> std::io::Result<OwnedFd> {
    let begun = Instant::now();
    loop {
        match bind_any(name) {
            Err(error)
                if error.kind() == std::io::ErrorKind::AddrInUse && begun.elapsed() < PORT_PATIENCE =>
            {
                std::thread::sleep(Duration::from_millis(50));
            }
            done => return done,
        }
    }
}

/// Takes the port at the first address that the name leads to and that is this machine's. IPv4 first: where clients look
/// when nobody says is 127.0.0.1.
fn bind_any(name: &str) -> std::io::Result<OwnedFd> {
    let mut addresses: Vec<SocketAddr> = name.to_socket_addrs()?.collect();
    addresses.sort_by_key(SocketAddr::is_ipv6);
    let mut failure = std::io::ErrorKind::AddrNotAvailable.into();
    for address in addresses {
        match bind(address) {
            Ok(socket) => return Ok(socket),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// Takes the port, before there are threads: they would be outside of the wall. Nobody is let wait there yet.
fn bind(address: SocketAddr) -> std::io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = net::socket_with(family, SocketType::STREAM, flags, None)?;
    net::sockopt::set_socket_reuseaddr(&socket, true)?;
    net::bind(&socket, &address)?;
    Ok(socket)
}

/// Opens the port that was taken.
fn listen(socket: OwnedFd) -> std::io::Result<tokio::net::TcpListener> {
    net::listen(&socket, CONNECTIONS_WAIT)?;
    tokio::net::TcpListener::from_std(socket.into())
}

/// From here on this process writes only in the store, and where it leaves its credential.
fn wall_in(store: &Path) {
    // It has to be there for the wall. Whatever is wrong with it, opening it says so.
    let _ = std::fs::create_dir(store);
    let needs = credentials::prepare();
    let needs = needs.iter().map(|(path, may)| (path.as_path(), *may));
    wall::raise(&needs.chain([(store, May::Write)]).collect::<Vec<_>>());
}

/// Opens the store and serves it until it is to stop. `None`: it was to stop before the store was open.
async fn open_and_serve(
    args: &Args,
    socket: OwnedFd,
    voice: Voice,
) -> Result<Option<(Arc<Store>, Result<(), Failure>)>, Failure> {
    let mut stop = Box::pin(super::stop_signal()?);
    // Whoever sees the port open may stop this process: the signals are waited for by now.
    let mut listener = listen(socket).map_err(|error| no_port(args, &error))?;
    let options = StoreOptions { keep_ms: args.keep, ..StoreOptions::default() };
    let path = args.store.clone();
    let opening = tokio::task::spawn_blocking(move || Store::open(&path, options));
    // To show, not to let in: the store is not locked yet.
    let key = identity::known(&args.store);
    let slow = || voice.say("opening the store takes long; clients are told to wait");
    let opened = tokio::select! {
        biased;
        () = &mut stop => return Ok(None),
        opened = porch::until(&mut listener, key.as_ref(), PATIENCE, slow, opening) => {
            opened.map_err(|error| Failure::general(&error))?
        }
    };
    let store = opened.map_err(|error| open_failure(&error))?;
    let served = serve(listener, &store, args, voice, stop).await;
    Ok(Some((store, served)))
}

async fn serve(
    listener: tokio::net::TcpListener,
    store: &Arc<Store>,
    args: &Args,
    voice: Voice,
    stop: impl Future<Output = ()>,
) -> Result<(), Failure> {
    let address = listener.local_addr().map_err(|error| Failure::general(&error))?;
    for problem in store.problems() {
        tracing::warn!("{}", describe(&problem));
    }
    let key = identity::key(&args.store)?;
    let (server, secret) = (key.fingerprint(), gate::owner_secret(&key));
    let devices = Devices::load(&args.store, identity::now_ms).map_err(|error| Failure::general(&error))?;
    let (clear, machine) = (args.tls == TlsArg::Auto, credentials::machine());
    let gate = Gate::new(key, clear, super::seed()?, machine, Arc::new(devices));
    let gate = Arc::new(gate.map_err(|error| Failure::general(&error))?);
    if let Err(why) = credentials::leave(&server, &secret) {
        voice.say(&format!(
            "your own clients cannot recognise this server, as nothing can be written for them ({why}); make one of these \
             places writable, or use `dropblock invite`"
        ));
    }
    identity::remember_address(&args.store, &address);
    text::data(&format!("listening on {address}"));
    let leaving = tokio::spawn(leave_again(server, secret));
    let mut config = Config::new(store.id(), super::seed()?);
    config.connections_max = connections_max(open_files_max());
    config.access = Access::Proved(gate.clone());
    let (folder, scrub_ms) = (args.store.clone(), args.scrub);
    config.tended = Some(Tended { store: store.clone(), folder, scrub_ms });
    let lock = lock_of(&args.store);
    let stop = async {
        tokio::select! {
            () = stop => {}
            () = removal(args.store.clone(), lock) => {}
        }
    };
    let ended = server::run(listener, store.clone(), store.clone(), config, stop).await;
    leaving.abort();
    credentials::withdraw(&server);
    if let Err(error) = gate.remember() {
        tracing::warn!(%error, "when devices were seen was not written down");
    }
    // The storage may have missed its files first.
    if lock.is_some() && lock_of(&args.store) != lock {
        let shown = ShownPath::from(args.store.as_path());
        let line = format!(
            "stopped: the store {shown} was removed or replaced while it was served, and nothing more is kept there; start again to go on \
             with what is there now"
        );
        return Err(Failure::new(Exit::General, line));
    }
    ended.map_err(|error| Failure::new(Exit::General, format!("stopped: {}", causes(&error))))
}

/// Which file the lock of the store at a path is: device and inode.
fn lock_of(store: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(store.join("lock")).map(|found| (found.dev(), found.ino())).ok()
}

/// Waits until the store is not at its path any more. What is written to open files that nobody can find would be
/// acknowledged, and lost with this process.
async fn removal(store: PathBuf, lock: Option<(u64, u64)>) {
    if lock.is_none() {
        return std::future::pending().await;
    }
    loop {
        tokio::time::sleep(STORE_LOOK).await;
        let store = store.clone();
        if let Ok(found) = tokio::task::spawn_blocking(move || lock_of(&store)).await
            && found != lock
        {
            return;
        }
    }
}

/// How many connections a process takes that may have so many files open: they must leave room for the store's own.
fn connections_max(files: u64) -> usize {
    let room = files.saturating_sub(FILES_BESIDE).max(files / 4);
    usize::try_from(room.min(CONNECTIONS_MAX)).unwrap_or(1)
}

/// A store inside a synced folder would be synced into itself without end.
fn refuse_inside_ours(store: &Path) -> Result<(), Failure> {
    let Ok(path) = std::path::absolute(store) else { return Ok(()) };
    let Some(outer) = folder::ours_above(&folder::Disk::Kernel, &path) else { return Ok(()) };
    let (store, outer) = (ShownPath::from(store), ShownPath::from(outer));
    Err(Failure::new(
        Exit::General,
        format!(
            "the store {store} is inside {outer}, which is a synced folder or a store: name one outside of it, or remove \
             {outer}/.dropblock if it was synced by mistake"
        ),
    ))
}

/// Sees that the user's clients go on finding what they need.
async fn leave_again(server: Fingerprint, secret: Secret) {
    loop {
        tokio::time::sleep(LEAVE).await;
        let secret = secret.clone();
        let left = tokio::task::spawn_blocking(move || credentials::leave(&server, &secret)).await;
        if let Ok(Err(why)) = left {
            tracing::debug!(why, "no place for the server's credential");
        }
    }
}

fn open_failure(error: &StorageError) -> Failure {
    let exit = match error {
        StorageError::Locked(_) => Exit::Locked,
        _ => Exit::General,
    };
    let advice = match error {
        StorageError::Full(_) => ": make room there and start again",
        _ => "",
    };
    Failure::new(exit, causes(error) + advice)
}

fn describe(problem: &Problem) -> String {
    match problem {
        Problem::DamagedPack { path, from, to } => {
            format!("{} is damaged from byte {from} to {to}: blocks in it are lost", path.display())
        }
        Problem::MissingPack(path) => format!("{} is missing: blocks in it are lost", path.display()),
        Problem::NoJournal(folder) => format!(
            "{} is empty although there are blocks: all that was in the store is out of reach; stop, and put the journals back",
            folder.display()
        ),
        Problem::DamagedBlock(hash) => format!("block {hash} is damaged"),
        Problem::CutTail { path, bytes } => {
            format!("{}: {bytes} bytes of an unfinished write were cut off", path.display())
        }
        Problem::RebuiltIndex { kept: Some(path) } => {
            format!("the index was built anew; the old one is {}", path.display())
        }
        Problem::RebuiltIndex { kept: None } => "the index was built anew".to_owned(),
    }
}
