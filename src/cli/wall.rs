//! The second wall: the kernel itself lets this process write only where it has business, and run no program. Whatever a
//! peer could still talk the program into, it ends there. The only file that names the `landlock` crate.
//!
//! Linux has it from 5.19 on (with moves between folders, without which nothing here would work). Where it is missing or
//! refused everything goes on as before: the first wall, every path relative to an open folder, does not need it. It holds
//! for the threads that are started after it was raised, and for good.

use landlock::{
    ABI, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, RulesetStatus,
};
use std::path::Path;

/// The rights that are known here: up to truncating, Linux 6.2.
const KNOWN: ABI = ABI::V3;

/// What may be done in a place, and in everything below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum May {
    /// Everything but make device files.
    Write,
    /// Make and remove folders.
    MakeFolders,
}

impl May {
    fn rights(self) -> BitFlags<AccessFs> {
        match self {
            Self::Write => AccessFs::from_write(KNOWN) & !(AccessFs::MakeChar | AccessFs::MakeBlock),
            Self::MakeFolders => AccessFs::MakeDir | AccessFs::RemoveDir,
        }
    }
}

/// From here on, this thread and those it starts write nowhere else, and run no program. Places that are not there are
/// left out. True when the wall stands.
pub fn raise(places: &[(&Path, May)]) -> bool {
    match try_raise(places) {
        Ok(true) => {
            let shown: Vec<_> = places.iter().map(|(path, _)| path.display().to_string()).collect();
            tracing::info!(may_write = %crate::model::path::escape(shown.join(", ").as_bytes()), "walled in by the kernel");
            true
        }
        Ok(false) => {
            tracing::info!("this kernel has no Landlock, so there is no second wall");
            false
        }
        Err(error) => {
            tracing::info!(%error, "no second wall");
            false
        }
    }
}

fn try_raise(places: &[(&Path, May)]) -> Result<bool, RulesetError> {
    // Without this right every move from folder to folder would be refused: then rather no wall.
    let ruleset = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    let Ok(ruleset) = ruleset.handle_access(AccessFs::Refer) else { return Ok(false) };
    let handled = AccessFs::from_write(KNOWN) | AccessFs::Execute;
    let ruleset = ruleset.set_compatibility(CompatLevel::BestEffort).handle_access(handled)?;
    let mut created = ruleset.create()?;
    for (path, may) in places {
        if let Ok(place) = PathFd::new(path) {
            created = created.add_rule(PathBeneath::new(place, may.rights()))?;
        }
    }
    Ok(created.restrict_self()?.ruleset != RulesetStatus::NotEnforced)
}
