//! `dropblock join`: a folder learns by an invite which server it belongs to, and the server learns the folder's key. The
//! invite is read from stdin: arguments and environment can be seen by others.

use super::failure::{Exit, Failure};
use super::keyring::{self, FolderKeyring, Known, Place};
use super::sync;
use super::text::Voice;
use crate::auth::Invite;
use crate::client::ClientError;
use crate::client::history::{Ask, Historian, HistoryError};
use crate::folder::private::Private;
use crate::folder::{Account, FolderError};
use crate::model::path::escape;
use crate::wire::WireError;
use std::io::{self, IsTerminal, Read};
use std::path::PathBuf;
use std::sync::Arc;

/// Longest line that is read, bytes.
const LINE_BYTES_MAX: u64 = 4096;

/// Join a folder to a server by an invite, which is read from stdin.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder to sync from now on; made when it is missing
    folder: PathBuf,

    /// Name of this device [default: the host's name]
    #[arg(long, value_name = "NAME", value_parser = sync::device_name, env = "DROPBLOCK_DEVICE")]
    device: Option<String>,
}

pub fn run(args: &Args, voice: Voice) -> Result<Exit, Failure> {
    sync::refuse_store(&args.folder)?;
    if io::stdin().is_terminal() {
        voice.say("paste the invite, then Enter:");
    }
    let invite = Invite::parse(&read_line()?).map_err(|error| Failure::general(&error))?;
    let known = Known {
        server: invite.server,
        invited: Some(Place {
            address: invite.address.clone(),
            share: invite.share.clone(),
            device: args.device.clone().unwrap_or_else(sync::host_name),
        }),
    };
    let before = Known::of(&args.folder);
    if let Some(before) = &before
        && before.invited.is_some()
        && before.server != known.server
    {
        let line = format!(
            "{} belongs to another server ({}); name another folder",
            escape(args.folder.as_os_str().as_encoded_bytes()),
            before.server
        );
        return Err(Failure::new(Exit::General, line));
    }
    other_share(args, &invite)?;
    sync::wall_in(&args.folder);
    let private = Private::open(&args.folder, true).map_err(|error| Failure::general(&error))?;
    // Before the server hears of it: whatever is interrupted from here on, this line can be pasted again.
    known.save(&private)?;
    let runtime = super::runtime()?;
    let joined = runtime.block_on(join(args, &invite));
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    if let Err(failure) = joined {
        match before {
            Some(before) => before.save(&private)?,
            None => Known::forget(&private)?,
        }
        return Err(failure);
    }
    voice.say(&format!(
        "joined the share {} of {}; `dropblock sync {}` keeps the folder equal to it",
        escape(invite.share.as_bytes()),
        invite.address,
        escape(args.folder.as_os_str().as_encoded_bytes()),
    ));
    Ok(Exit::Ok)
}

/// The first line of stdin.
fn read_line() -> Result<String, Failure> {
    let mut bytes = Vec::new();
    let mut stdin = io::stdin().lock().take(LINE_BYTES_MAX);
    io::BufRead::read_until(&mut io::BufReader::new(&mut stdin), b'\n', &mut bytes)
        .map_err(|error| Failure::new(Exit::General, format!("stdin: {error}")))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A folder that was synced keeps its share.
fn other_share(args: &Args, invite: &Invite) -> Result<(), Failure> {
    match Account::read(&args.folder) {
        Ok(account) if account.share != invite.share => {
            let (found, asked) = (account.share, invite.share.clone());
            Err(Failure::general(&ClientError::OtherShare { found, asked }))
        }
        Ok(_) | Err(FolderError::NotSynced { .. } | FolderError::NotFound { .. }) => Ok(()),
        Err(error) => Err(Failure::general(&error)),
    }
}

async fn join(args: &Args, invite: &Invite) -> Result<(), Failure> {
    let ring = Arc::new(FolderKeyring::new(&args.folder)?);
    ring.keep()?;
    let ask = |secret| Ask {
        server: invite.address.clone(),
        dialer: keyring::invited(ring.clone(), secret),
        share: invite.share.clone(),
        store: None,
        device: None,
        device_name: keyring::device_name(args.device.as_deref(), &args.folder),
    };
    let refused = match Historian::open(ask(Some(invite.secret.clone()))).await {
        Ok(session) => {
            session.close().await;
            return Ok(());
        }
        Err(error) => error,
    };
    // The answer to an earlier attempt may have been lost: then the server knows the key by now.
    match Historian::open(ask(None)).await {
        Ok(session) => {
            session.close().await;
            Ok(())
        }
        Err(_) => Err(match &refused {
            HistoryError::Client(ClientError::Wire { source: WireError::Goodbye { code, .. }, .. })
                if !code.is_retryable() =>
            {
                let line = format!(
                    "{} does not take this invite: it was used, is older than 24 hours, or was made for another server",
                    invite.address
                );
                Failure::new(super::place::failure(&refused).exit, line)
            }
            _ => super::place::failure(&refused),
        }),
    }
}
