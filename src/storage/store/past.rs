//! The past of a share, as the store tells it: on the reading threads, from the index.

use super::super::history::History;
use super::super::{BoxFuture, Result, ShareId};
use super::Store;
use crate::model::past::{Found, Look, Moment, Seen, Versions};
use crate::model::{Name, NodeId, Seq};

impl History for Store {
    fn moment(&self, share: ShareId, at: Moment) -> BoxFuture<'_, Result<Found>> {
        Box::pin(async move { self.reader()?.run(move |reader| reader.moment(share, at)).await })
    }

    fn versions(
        &self,
        share: ShareId,
        path: Vec<Name>,
        before: Option<(Seq, NodeId)>,
        max: usize,
    ) -> BoxFuture<'_, Result<Versions>> {
        Box::pin(
            async move { self.reader()?.run(move |reader| reader.versions(share, &path, before, max)).await },
        )
    }

    fn look(&self, share: ShareId, at: Seq, look: Look, max: usize) -> BoxFuture<'_, Result<Seen>> {
        Box::pin(async move { self.reader()?.run(move |reader| reader.look(share, at, &look, max)).await })
    }
}
