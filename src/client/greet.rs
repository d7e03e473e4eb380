//! Reaching the server and shaking hands.

use super::reconnect::Backoff;
use super::{Client, ClientError, News};
use crate::model::DeviceId;
use crate::wire::{Connection, Head, Hello, Options, Pushes};
use std::time::Duration;
use tokio::time::Instant;

/// A server that says that it is still opening its store is waited for, by a one-time sync too; but not for ever.
const OPENING_MAX: Duration = Duration::from_secs(600);
/// One that is crowded by strangers lets in whoever proves itself before the next ones come: so it is tried often, for so long.
const CROWDED_MAX: Duration = Duration::from_secs(60);
/// Or it hangs up, as does what is no server: so this is tried for less long.
const CUT_MAX: Duration = Duration::from_secs(3);
/// Between two tries, ms, and up to as much again.
const CROWDED_MS: u64 = 50;

impl Client {
    /// A connection with its welcome.
    pub(super) async fn greet(&mut self, once: bool) -> Result<(Connection, Pushes), ClientError> {
        let (start, mut backoff, mut is_told) = (Instant::now(), Backoff::default(), false);
        loop {
            match self.try_greet().await {
                Err(error) if once && error.is_crowded() && start.elapsed() < CROWDED_MAX => {
                    if !std::mem::replace(&mut is_told, true) {
                        self.news(News::Lost(error));
                    }
                    self.pause().await;
                }
                Err(error) if once && error.is_cut() && start.elapsed() < CUT_MAX => self.pause().await,
                // A live client tries again whatever it is.
                Err(error) if once && error.is_opening() && start.elapsed() < OPENING_MAX => {
                    self.news(News::Lost(error));
                    let dice = self.dice();
                    tokio::time::sleep(backoff.next(dice)).await;
                }
                other => return other,
            }
        }
    }

    async fn try_greet(&self) -> Result<(Connection, Pushes), ClientError> {
        let server = self.config.server.clone();
        let link = self.config.dialer.dial(&server).await.map_err(|error| unreachable_or(error, &server))?;
        let cursor = self.state.head().map(|at| Head { journal: at.journal, seq: at.seq, chain: at.chain });
        let device = self.state.device.unwrap_or(DeviceId::from_bytes([0; 16]));
        let mut hello = Hello::new(device, self.config.device_name.clone(), self.share.clone(), cursor);
        hello.auth = link.auth;
        let counters = self.counters.clone();
        let opened = Connection::open(link.reader, link.writer, hello, Options::default(), counters).await;
        let opened = opened.map_err(|source| ClientError::Wire { server, source })?;
        if let Some(server) = &link.server {
            self.config.dialer.welcomed(server);
        }
        Ok(opened)
    }

    async fn pause(&mut self) {
        let dice = self.dice();
        tokio::time::sleep(Duration::from_millis(CROWDED_MS + dice % CROWDED_MS)).await;
    }

    /// Any number.
    pub(super) fn dice(&mut self) -> u64 {
        u64::from_le_bytes(*self.cycle.ids().bytes16().first_chunk().unwrap_or(&[0; 8]))
    }
}

pub(super) fn unreachable_or(error: crate::wire::WireError, server: &str) -> ClientError {
    match error {
        crate::wire::WireError::Io(source) => ClientError::Unreachable { server: server.to_owned(), source },
        source => ClientError::Wire { server: server.to_owned(), source },
    }
}
