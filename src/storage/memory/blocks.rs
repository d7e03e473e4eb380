//! Blocks of a [`MemoryStore`].

use super::{BlockStore, BoxFuture, MemoryStore, PutReport, Result, ShareId};
use crate::block::{SealedBlock, VerifiedBlock};
use crate::model::BlockHash;
use std::future::ready;

impl BlockStore for MemoryStore {
    fn put_within(
        &self,
        share: Option<ShareId>,
        blocks: Vec<VerifiedBlock>,
        brought_max: u64,
    ) -> BoxFuture<'_, Result<PutReport>> {
        // Inside: a future does nothing before it is polled.
        Box::pin(async move { self.state().put(share, &blocks, brought_max) })
    }

    fn get_in(
        &self,
        share: Option<ShareId>,
        hashes: Vec<BlockHash>,
    ) -> BoxFuture<'_, Result<Vec<Option<SealedBlock>>>> {
        let state = self.state();
        let get = |hash| state.blocks.0.get(hash).filter(|_| state.reaches(share, hash)).cloned();
        let found = || hashes.iter().map(get).collect();
        Box::pin(ready(state.disk.check().map(|()| found())))
    }

    fn missing_in(&self, share: Option<ShareId>, hashes: Vec<BlockHash>) -> BoxFuture<'_, Result<Vec<bool>>> {
        let state = self.state();
        let lacks = |hash: &BlockHash| !state.blocks.0.contains_key(hash) || !state.reaches(share, hash);
        let missing = || hashes.iter().map(lacks).collect();
        Box::pin(ready(state.disk.check().map(|()| missing())))
    }
}
