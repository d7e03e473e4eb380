//! `dropblock invite`: one line that lets one more device in. The line is a secret: it goes to stdout and nowhere else.

use super::failure::{Exit, Failure};
use super::keyring::DEFAULT_ADDRESS;
use super::text::{self, Voice};
use super::{identity, office, size, sync};
use crate::auth::{Invite, InviteSecret, Scope};
use crate::client::DEFAULT_SHARE;
use crate::model::path::escape;
use crate::server::office::{Ask, Told};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::PathBuf;

/// Let one more device in: print an invite for it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder of the store
    #[arg(long, value_name = "FOLDER", env = "DROPBLOCK_STORE")]
    store: PathBuf,

    /// The share that the device may open
    #[arg(long, value_name = "NAME", default_value = DEFAULT_SHARE, value_parser = sync::share_name, env = "DROPBLOCK_SHARE")]
    share: String,

    /// The device may look and not change
    #[arg(long)]
    read_only: bool,

    /// The device may store this much in all, for example 20GB [default: what fits]
    #[arg(long, value_name = "SIZE", value_parser = size::bytes)]
    quota: Option<u64>,

    /// Where the device will find the server [default: where it listens]
    #[arg(long, value_name = "HOST:PORT", value_parser = sync::server)]
    address: Option<String>,
}

pub fn run(args: &Args, voice: Voice) -> Result<Exit, Failure> {
    let seed = super::seed()?;
    let (secret, _) = seed.split_first_chunk::<{ InviteSecret::BYTES }>().unwrap_or((&[0; 16], &[]));
    let scope = Scope { share: Some(args.share.clone()), read_only: args.read_only };
    let told = office::ask(&args.store, Ask::Invite { secret: *secret, scope, quota: args.quota })?;
    let Told::Invited = told else { return Err(office::odd_reply()) };
    // After the server was asked: it made its key at the latest then.
    let server = identity::key(&args.store)?.fingerprint();
    let address = match &args.address {
        Some(address) => address.clone(),
        None => listening(identity::last_address(&args.store), voice),
    };
    let secret = InviteSecret::from_bytes(*secret);
    let invite = Invite { address, share: args.share.clone(), server, secret };
    text::data(&invite.to_line());
    let (share, how) =
        (escape(args.share.as_bytes()), if args.read_only { "look at" } else { "look at and change" });
    let quota =
        args.quota.map(|quota| format!(", and store {} in all,", text::bytes(quota))).unwrap_or_default();
    voice.say(&format!(
        "one device may {how} the share {share}{quota} with this line, within 24 hours; there: `dropblock join FOLDER`, and paste it"
    ));
    Ok(Exit::Ok)
}

/// Where others find a server that listens there.
fn listening(address: Option<SocketAddr>, voice: Voice) -> String {
    let Some(address) = address else {
        voice.say("this store was never served: the line says the usual address; --address says another");
        return DEFAULT_ADDRESS.to_owned();
    };
    if address.ip().is_unspecified() {
        if let Some(ip) = own_address(address) {
            return SocketAddr::new(ip, address.port()).to_string();
        }
        voice.say("the server listens everywhere; say with --address how the device reaches it");
    } else if address.ip().is_loopback() {
        voice.say(
            "the server listens on this machine only, so the line works here only; serve with --listen 0.0.0.0:7420, or say \
             with --address how the device reaches it",
        );
    }
    address.to_string()
}

/// The address from which this machine would reach others. Nothing is sent.
fn own_address(listening: SocketAddr) -> Option<IpAddr> {
    let (any, other) = match listening {
        SocketAddr::V4(_) => ("0.0.0.0:0", "192.0.2.1:9"),
        SocketAddr::V6(_) => ("[::]:0", "[2001:db8::1]:9"),
    };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(other).ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_unspecified())
}
