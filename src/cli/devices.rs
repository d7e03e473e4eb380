//! `dropblock devices`, `dropblock quota` and `dropblock revoke`: who is let in, with how much, and who no more.

use super::failure::{Exit, Failure};
use super::json::Object;
use super::tend::Which;
use super::text::{self, Voice};
use super::{office, size, when};
use crate::model::path::escape;
use crate::server::office::{Ask, Told};
use crate::server::{Device, Quota};
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

/// Set how much an invited device may store in all.
#[derive(Debug, clap::Args)]
pub struct QuotaArgs {
    /// Folder of the store
    #[arg(long, value_name = "FOLDER", env = "DROPBLOCK_STORE")]
    store: PathBuf,

    /// Its id (the first digits are enough) or its name, as `dropblock devices` shows them
    device: String,

    /// What it may store in all, what it has stored already included: for example 20GB, or `none` for what fits
    #[arg(value_parser = size::bytes_or_none)]
    size: size::Limit,
}

pub fn list(args: &ListArgs, voice: Voice) -> Result<Exit, Failure> {
    let Told::Devices(devices) = office::ask(&args.which.store, Ask::List)? else {
        return Err(office::odd_reply());
    };
    if devices.is_empty() {
        voice.say("no device was here yet");
    }
    for (device, quota) in &devices {
        text::data(&if args.which.json { json_line(device, *quota) } else { line(device, *quota) });
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

pub fn quota(args: &QuotaArgs, voice: Voice) -> Result<Exit, Failure> {
    let Told::Quota(device, quota) = office::ask(&args.store, Ask::Quota(args.device.clone(), args.size.0))?
    else {
        return Err(office::odd_reply());
    };
    let may = match quota {
        Some(quota) => format!(
            "may store {} in all, {} used",
            text::bytes(quota.bytes_max),
            text::bytes(quota.bytes_used)
        ),
        None => "may store what fits".to_owned(),
    };
    voice.say(&format!("{} ({}) {may}", escape(device.name.as_bytes()), device.id));
    Ok(Exit::Ok)
}

fn state(device: &Device) -> &'static str {
    match (device.revoked, device.invited) {
        (true, _) => "revoked",
        (false, true) => "invited",
        (false, false) => "own",
    }
}

/// `id  last seen  state  scope and quota  name`.
fn line(device: &Device, quota: Option<Quota>) -> String {
    let mut may = device.scope.to_string();
    if let Some(Quota { bytes_max, bytes_used }) = quota {
        may.push_str(&format!(", {} of {} used", text::bytes(bytes_used), text::bytes(bytes_max)));
    }
    format!(
        "{}  {}  {:<7}  {:<32}  {}",
        device.id,
        when::shown(device.seen_ms),
        state(device),
        escape(may.as_bytes()),
        escape(device.name.as_bytes()),
    )
}

fn json_line(device: &Device, quota: Option<Quota>) -> String {
    let line = Object::default()
        .text("id", &device.id)
        .text("name", &device.name)
        .text("state", state(device))
        .maybe_text("share", device.scope.share.as_deref())
        .flag("read_only", device.scope.read_only)
        .text("first_seen", &when::rfc3339(device.since_ms))
        .text("last_seen", &when::rfc3339(device.seen_ms));
    match quota {
        Some(quota) => {
            line.number("quota_bytes", quota.bytes_max).number("used_bytes", quota.bytes_used).line()
        }
        None => line.line(),
    }
}
