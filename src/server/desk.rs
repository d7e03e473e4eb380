//! What the sessions of one device share. Whatever one session may hold at a time is bounded; so that many sessions of one
//! device hold little more, there are only so many, and they draw on bounds of the device too.
//!
//! The bounds of a device are a few times those of a session: one that has stalled takes nothing from the others.

use crate::auth::PublicKey;
use crate::model::limits::FRAME_BYTES_MAX;
use crate::wire::outbox::QUEUED_BYTES_MAX;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use tokio::sync::{Mutex as Turns, OwnedSemaphorePermit, Semaphore};

/// Sessions of one device at a time. A folder has one, each command in it one more while it runs, and one that lost its
/// connection without a word stays for a minute and a half.
pub const SESSIONS_MAX: usize = 64;
/// Requests under way of all sessions of a device, by those of one session.
const REQUESTS_FACTOR: usize = 2;
/// Answers that wait, of all sessions of a device, bytes.
const ANSWERS_BYTES_MAX: usize = 4 * QUEUED_BYTES_MAX;
/// Large frames that are being read, of all sessions of a device, bytes. Sessions that have stalled hold one each.
const READING_BYTES_MAX: usize = 32 * FRAME_BYTES_MAX;
/// Requests of a device whose blocks are opened at one time.
const OPENING_MAX: usize = 2;
/// `Have` of a device that are looked up at one time: what they lease meanwhile may be made up.
const LOOKING_MAX: usize = 4;
/// Commits of a device whose long files are looked at at one time: a look at a long one remembers much, and few may.
const SEARCHING_MAX: usize = 1;
/// Questions of a device about the past that are answered at one time: each keeps one of storage's few readers busy.
const ASKING_MAX: usize = 2;
/// Requests of a device that hold blocks which they read, or a page of nodes.
const FETCHING_MAX: usize = 16;
const PAGES_MAX: usize = 32;

/// See the module.
#[derive(Debug)]
pub struct Desk {
    places: Arc<Semaphore>,
    /// Bytes of requests under way.
    pub in_flight: Arc<Semaphore>,
    /// Bytes of answers that wait.
    pub answers: Arc<Semaphore>,
    /// Bytes of large frames that are being read, or wait for their place under way.
    pub reading: Arc<Semaphore>,
    /// `WantBlocks` that are being answered.
    pub fetching: Semaphore,
    /// Requests that are answered with a page.
    pub pages: Semaphore,
    /// Questions about the past that are being answered.
    pub asking: Semaphore,
    /// `Have` that are being looked up.
    pub looking: Semaphore,
    /// Commits that name files with a chunk list.
    pub searching: Semaphore,
    /// Requests whose blocks are opened. The others of a device wait here, and not in front of those of other devices.
    pub opening: Semaphore,
    /// Held while a device with a quota stores something, so that what it may still bring is known.
    pub bringing: Turns<()>,
}

/// A place at a desk, for as long as a session lasts.
#[derive(Debug)]
pub struct Seat {
    /// Shared with the device's other sessions.
    pub desk: Arc<Desk>,
    _place: OwnedSemaphorePermit,
}

/// The desks of all devices that are here.
#[derive(Debug, Default)]
pub struct Desks(Mutex<HashMap<PublicKey, Weak<Desk>>>);

impl Desks {
    /// A place for one more session; `None` when the device has all that it may have. Whoever is nobody in particular
    /// (`key` is `None`) shares with nobody. `in_flight` is the bound of one session, bytes.
    pub fn sit(&self, key: Option<&PublicKey>, in_flight: usize) -> Option<Seat> {
        let make = || {
            Arc::new(Desk {
                places: Arc::new(Semaphore::new(SESSIONS_MAX)),
                in_flight: Arc::new(Semaphore::new(in_flight.saturating_mul(REQUESTS_FACTOR))),
                answers: Arc::new(Semaphore::new(ANSWERS_BYTES_MAX)),
                reading: Arc::new(Semaphore::new(READING_BYTES_MAX)),
                fetching: Semaphore::new(FETCHING_MAX),
                pages: Semaphore::new(PAGES_MAX),
                asking: Semaphore::new(ASKING_MAX),
                looking: Semaphore::new(LOOKING_MAX),
                searching: Semaphore::new(SEARCHING_MAX),
                opening: Semaphore::new(OPENING_MAX),
                bringing: Turns::default(),
            })
        };
        let desk = match key {
            None => make(),
            Some(key) => {
                let mut desks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                let there = desks.get(key).and_then(Weak::upgrade);
                there.unwrap_or_else(|| {
                    // Before it grows, so that this is done now and then, and it is as large as the devices are many.
                    if desks.len() == desks.capacity() {
                        desks.retain(|_, desk| desk.strong_count() > 0);
                    }
                    let desk = make();
                    desks.insert(*key, Arc::downgrade(&desk));
                    desk
                })
            }
        };
        let place = desk.places.clone().try_acquire_owned().ok()?;
        Some(Seat { desk, _place: place })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_has_so_many_places_and_what_it_shares_goes_with_its_last_session() {
        let desks = Desks::default();
        let (one, other) = (PublicKey::from_bytes([1; 32]), PublicKey::from_bytes([2; 32]));
        let mut seats: Vec<Seat> = (0..SESSIONS_MAX).map(|_| desks.sit(Some(&one), 10).unwrap()).collect();
        assert!(desks.sit(Some(&one), 10).is_none() && desks.sit(Some(&other), 10).is_some());
        seats.pop();
        seats.push(desks.sit(Some(&one), 10).unwrap());
        assert!(Arc::ptr_eq(&seats[0].desk, &seats[SESSIONS_MAX - 1].desk));
        assert_eq!(seats[0].desk.in_flight.available_permits(), 20);
        drop(seats);
        for n in 0..200 {
            desks.sit(Some(&PublicKey::from_bytes([n; 32])), 10).unwrap();
        }
        assert!(desks.0.lock().unwrap().len() < 20, "little is kept of who is gone");
        let nobody: Vec<Seat> = (0..2).map(|_| desks.sit(None, 10).unwrap()).collect();
        assert!(!Arc::ptr_eq(&nobody[0].desk, &nobody[1].desk));
    }
}
