//! `dropblock devices` and `dropblock revoke`: who is let in, and who no more.

use super::failure::{Exit, Failure};
use super::json::Object;
use super::tend::Which;
use super::text::{self, Voice};
use super::{office, when};
use crate::model::path::escape;
use crate::server::Device;
use crate::server::office::{Ask, Told};
use std::path::PathBuf;

/// List the devices that a server knows.
#[derive(Debug, clap::Args)]
pub struct ListArgs {
    #[command(flatten)]
    which: Which,
}

/// Let a device in no more; a session of it ends at once.
#[derive(Debug, clap::Args)]
pub struct RevokeArgs {
    /// Folder of the store
    #[arg(long, value_name = "FOLDER", env = "DROPBLOCK_STORE")]
    store: PathBuf,

    /// Its id (the first digits are enough) or its name, as `dropblock devices` shows them
    device: String,
}

pub fn list(args: &ListArgs, voice: Voice) -> Result<Exit, Failure> {
    let Told::Devices(devices) = office::ask(&args.which.store, Ask::List)? else {
        return Err(office::odd_reply());
    };
    if devices.is_empty() {
        voice.say("no device was here yet");
    }
    for device in &devices {
        text::data(&if args.which.json { json_line(device) } else { line(device) });
    }
    Ok(Exit::Ok)
}

pub fn revoke(args: &RevokeArgs, voice: Voice) -> Result<Exit, Failure> {
    let Told::Revoked(device) = office::ask(&args.store, Ask::Revoke(args.device.clone()))? else {
        return Err(office::odd_reply());
    };
    voice.say(&format!("{} ({}) is let in no more", escape(device.name.as_bytes()), device.id));
    Ok(Exit::Ok)
}

fn state(device: &Device) -> &'static str {
    match (device.revoked, device.invited) {
        (true, _) => "revoked",
        (false, true) => "invited",
        (false, false) => "own",
    }
}

/// `id  last seen  state  scope  name`.
fn line(device: &Device) -> String {
    format!(
        "{}  {}  {:<7}  {:<32}  {}",
        device.id,
        when::shown(device.seen_ms),
        state(device),
        escape(device.scope.to_string().as_bytes()),
        escape(device.name.as_bytes()),
    )
}

fn json_line(device: &Device) -> String {
    Object::default()
        .text("id", &device.id)
        .text("name", &device.name)
        .text("state", state(device))
        .maybe_text("share", device.scope.share.as_deref())
        .flag("read_only", device.scope.read_only)
        .text("first_seen", &when::rfc3339(device.since_ms))
        .text("last_seen", &when::rfc3339(device.seen_ms))
        .line()
}
