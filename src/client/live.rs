//! Running: once until both sides are equal, or for good.

use super::large::Note;
use super::patrol::{Look, Patrol};
use super::reconnect::Backoff;
use super::session::Session;
use super::{Client, ClientError, Done, News, rescue_names};
use crate::folder::FolderError;
use crate::folder::scan::Scope;
use crate::folder::watch::{Hint, Watcher};
use crate::wire::{ErrorCode, Pushes};
use std::future::Future;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior};

/// The whole folder is looked at again after this long, for what the system does not tell (mmap, other mounts).
const RESCAN: Duration = Duration::from_secs(60);
/// Without enough watches the folder is looked at this often.
const RESCAN_LIMITED: Duration = Duration::from_secs(5);
/// What was left undone is tried again after this long.
const RETRY: Duration = Duration::from_millis(200);
/// The same, when it has failed several times in a row.
const RETRY_SLOW: Duration = Duration::from_secs(5);
/// A large file that was written to while it was read is looked at again after this long.
const CHANGING_PAUSE: Duration = Duration::from_secs(2);
/// Failures in a row after which people are told what is left.
const FAILURES_TOLD: u32 = 10;
/// Files that are being put in place when the client is to stop are recorded first, if that takes no longer. Not recorded, one
/// that its user deletes before the next start would come back.
const FINISH: Duration = Duration::from_secs(3);
/// Between two looks at files that came out of the folder.
const SWEEP: Duration = Duration::from_secs(1);

impl Client {
    /// Syncs both ways until nothing is left. Comes back when the server has everything durably.
    ///
    /// # Errors
    /// When the server cannot be reached or goes away, when the folder or disk fails, or when the guard holds.
    pub async fn run_once(&mut self) -> Result<Done, ClientError> {
        let (mut session, mut pushes) = Session::open(self, true).await?;
        let done = session.until_equal(&mut pushes).await;
        let unsent = session.no_room.summary().map(|waits| (session.no_room.why.clone(), waits));
        if let Some(wait) = session.client.folder.sweep_wait() {
            tokio::time::sleep(wait).await;
            sweep(&mut session);
        }
        if done.is_ok() {
            session.prune();
            session.client.state.tidy()?;
            sweep(&mut session);
            super::repair::finish(&mut session, &mut pushes).await;
            session.connection.close(ErrorCode::Done, "").await;
        }
        done?;
        if let Some((why, (path, files))) = unsent {
            return Err(ClientError::ServerFull { why, path: path.to_string(), files });
        }
        Ok(Done { problems: self.problems.values().cloned().collect() })
    }

    /// Takes the private part away again after a run that failed, if that run made it and nothing was synced: a folder that
    /// was named by mistake must not look like a synced one, which no store and no other synced folder may be inside of.
    pub fn forget_if_unused(self, error: &ClientError) {
        let refused = matches!(error, ClientError::StoreInside { .. });
        if self.state.base.is_empty() && (refused || self.state.store.is_none()) {
            self.folder.unmake();
        }
    }

    /// Keeps both sides equal until `shutdown`. Connects again whenever the connection is lost.
    ///
    /// # Errors
    /// When the folder fails, or the server refuses for good.
    pub async fn run_forever(&mut self, shutdown: impl Future<Output = ()>) -> Result<(), ClientError> {
        let trigger = self.trigger.clone();
        let watcher =
            Watcher::start_on(self.folder.disk(), self.folder.path(), move |hint| trigger.hint(hint))?;
        if let Some(advice) = watcher.limit_advice() {
            self.news(News::WatchLimited(advice));
        }
        tokio::pin!(shutdown);
        let mut backoff = Backoff::default();
        loop {
            self.placing.send_replace(false);
            let mut placing = self.placing.subscribe();
            let lost = {
                let session = self.session(&watcher);
                tokio::pin!(session);
                tokio::select! {
                    biased;
                    () = &mut shutdown => {
                        let recorded = placing.wait_for(|placing| !placing);
                        let finish = async {
                            tokio::select! {
                                biased;
                                _ = &mut session => {}
                                _ = recorded => {}
                            }
                        };
                        let _ = tokio::time::timeout(FINISH, finish).await;
                        return Ok(());
                    }
                    ended = &mut session => match ended {
                        Ok(never) => match never {},
                        Err(error) => error,
                    },
                }
            };
            if !(may_try_again(&lost) || self.met && is_another(&lost)) {
                return Err(lost);
            }
            // It may be why.
            self.check_folder()?;
            if std::mem::take(&mut self.was_equal) {
                backoff.reset();
            }
            self.news(News::Lost(lost));
            let dice = self.dice();
            tokio::select! {
                biased;
                () = &mut shutdown => return Ok(()),
                () = tokio::time::sleep(backoff.next(dice)) => {}
            }
        }
    }

    /// Sees whether the folder is still where it was: one that was unmounted, moved away or covered by a mount reports no
    /// change, and what its user does at that path then would go nowhere. Any other failure is met when it is scanned.
    ///
    /// # Errors
    /// [`FolderError::Replaced`].
    fn check_folder(&self) -> Result<(), ClientError> {
        match self.folder.work().here(|| self.folder.check()) {
            Err(error @ FolderError::Replaced { .. }) => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// One session, until it is lost.
    async fn session(&mut self, watcher: &Watcher) -> Result<std::convert::Infallible, ClientError> {
        let poll = self.config.poll;
        let (mut session, mut pushes) = Session::open(self, false).await?;
        session.client.met = true;
        session.client.news(News::Connected);
        session.hear(&mut pushes).await?;
        let mut polls = tokio::time::interval(poll);
        polls.set_missed_tick_behavior(MissedTickBehavior::Delay);
        polls.reset();
        let mut sweeps = tokio::time::interval(SWEEP);
        sweeps.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut told_equal = false;
        let mut held = false;
        let mut failures: u32 = 0;
        let mut patrol = Patrol::new();
        let mut retry_at: Option<Instant> = None;
        loop {
            // While the guard holds, only a look at everything may let it go.
            let look = if held { Some(Look::Whole) } else { patrol.due(&session.client.state.base) };
            let ends_round = matches!(look, Some(Look::Some { ends_round: true, .. }));
            let patrols = look.is_some();
            // Not at the first look: all folders have just been watched, or the connection was lost and there may be many.
            if let Some(look) = look.as_ref().filter(|_| told_equal) {
                watcher.watch_again(look.dirs());
            }
            let hinted = if matches!(look, Some(Look::Whole)) { None } else { session.client.trigger.take() };
            let scope = match look {
                Some(look) => Some(look.and(hinted)),
                None => hinted,
            };
            let full = matches!(scope, Some(Scope::Full));
            match session.cycle(scope).await {
                Err(error @ ClientError::Held { .. }) => {
                    if !std::mem::replace(&mut held, true) {
                        session.client.news(News::Held(error));
                    }
                    patrol.all_in(RESCAN_LIMITED);
                    let _ = session.client.trigger.take();
                }
                // Also for a full disk of this side: what memory holds may be ahead of the state, so it starts over.
                Err(error) => return Err(error),
                Ok(()) => {
                    held = false;
                    let took = session.looking_took;
                    if ends_round {
                        session.client.twins.clear();
                        session.client.forget_settled_problems();
                    }
                    if full || ends_round {
                        let usual = if watcher.is_limited() { RESCAN_LIMITED } else { RESCAN };
                        patrol.looked_at_all(&session.client.state.base, usual, took);
                    } else if patrols {
                        patrol.looked(took);
                    }
                }
            }
            let settled = session.is_settled() && session.no_room.is_empty();
            let busy = !session.large.is_idle();
            failures = if settled { 0 } else { failures.saturating_add(1) };
            if failures == FAILURES_TOLD {
                session.tell_left();
            }
            if settled && !held && !busy && !session.must_poll && !std::mem::replace(&mut told_equal, true) {
                session.client.was_equal = true;
                session.prune();
                session.client.state.tidy()?;
                session.client.news(News::InSync);
            }
            if session.must_poll && failures < 3 {
                continue;
            }
            let retry = if failures > FAILURES_TOLD || busy { RETRY_SLOW } else { RETRY };
            // Kept over rounds that something else wakes, such as polls, or its time would never come.
            retry_at = if settled || held { None } else { retry_at.or(Some(Instant::now() + retry)) };
            let next_look = patrol.next();
            let wake = tokio::time::sleep_until(next_look);
            tokio::select! {
                biased;
                () = wake => {}
                () = tokio::time::sleep_until(retry_at.unwrap_or(next_look)), if retry_at.is_some() => {
                    retry_at = None;
                    session.client.trigger.hint(Hint::Rescan);
                    session.must_poll = true;
                }
                ended = wait(&mut session, &mut pushes, &mut polls, &mut sweeps) => ended?,
            }
            if session.connection.is_closed() {
                let why = session.connection.closed().await;
                return Err(crate::wire::WireError::shared(why).into());
            }
        }
    }
}

/// Waits until there is something to do.
async fn wait(
    session: &mut Session<'_>,
    pushes: &mut Pushes,
    polls: &mut tokio::time::Interval,
    sweeps: &mut tokio::time::Interval,
) -> Result<(), ClientError> {
    let trigger = session.client.trigger.clone();
    loop {
        tokio::select! {
            biased;
            push = pushes.next() => match push {
                Some(push) => if session.take_push(push) { return Ok(()) },
                None => return Ok(()),
            },
            () = trigger.settled() => return Ok(()),
            note = session.large.next() => {
                let Note { path, local, changing, no_room, problem } = note?;
                if let Some((stamp, why)) = no_room {
                    session.waits_for_room(stamp, path, why);
                    return Ok(());
                }
                if let Some(line) = problem {
                    // Tried again with everything else that is left, not at once.
                    session.client.problem(path.to_string(), line);
                    continue;
                }
                if changing {
                    let trigger = trigger.clone();
                    tokio::spawn(async move {
                        tokio::time::sleep(CHANGING_PAUSE).await;
                        trigger.hint(Hint::Rescan);
                    });
                    continue;
                }
                if local {
                    trigger.hint(Hint::Rescan);
                }
                return Ok(());
            }
            _ = polls.tick() => {
                session.client.check_folder()?;
                session.must_poll = true;
                if session.poll().await.is_err() || !session.client.cycle.has_applied_all() {
                    return Ok(());
                }
            }
            _ = sweeps.tick() => sweep(session),
        }
    }
}

/// Lets go of files that came out of the folder a while ago, and brings back those that were still written to.
fn sweep(session: &mut Session<'_>) {
    let client = &*session.client;
    if client.folder.trash_len() == 0 {
        return;
    }
    let mut names = rescue_names(&client.config);
    let (folder, now) = (&client.folder, client.folder.disk().instant());
    match folder.work().here(|| folder.sweep_trash(now, &mut names)) {
        Ok(rescued) => {
            for path in rescued {
                session.client.news(News::Conflict(path.clone()));
                session.look_again(Some(&path));
            }
        }
        Err(error) => tracing::warn!(%error, "trash not cleared"),
    }
}

/// Somebody else answers where the server was a while ago. It may come back, and nothing was said to that somebody: a
/// squatter on the port of a server that restarts must not end its clients.
fn is_another(error: &ClientError) -> bool {
    matches!(error, ClientError::Wire { source, .. } if source.is_violation())
}

/// A refusal for good ends the client; anything that may pass does not.
fn may_try_again(error: &ClientError) -> bool {
    match error {
        ClientError::Folder(error) => error.is_retryable(),
        error => error.is_retryable(),
    }
}
