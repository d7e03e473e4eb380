//! Makes a failing story smaller: fewer steps, fewer machines, fewer events. What fails need not fail for the same reason,
//! but it fails.

use super::world::{self, Story};
use std::panic::catch_unwind;

/// The smallest part of a story that is found to fail, and how many were told. The story itself when it does not fail.
pub fn smallest(story: &Story, runs_max: usize) -> (Story, usize) {
    let whole = catch_unwind(|| world::run(story, false));
    let size = whole.as_ref().map_or((120, 5), |ended| (ended.steps, ended.machines));
    smallest_by(story, size, runs_max, |part| {
        catch_unwind(|| world::run(part, false)).map_or(true, |ended| !ended.violations.is_empty())
    })
}

/// The same for anything that may fail; `size`: steps and machines of the whole.
pub fn smallest_by(
    story: &Story,
    (steps, machines): (u64, usize),
    runs_max: usize,
    fails: impl Fn(&Story) -> bool,
) -> (Story, usize) {
    let mut best = story.clone();
    let mut runs = 0;
    let mut try_out = |part: Story, best: &mut Story| {
        if runs >= runs_max {
            return false;
        }
        runs += 1;
        let failed = fails(&part);
        if failed {
            *best = part;
        }
        failed
    };
    // The end of most stories has nothing to do with it: half of it, then less at a time.
    let (mut kept, mut piece) = (steps, steps.div_ceil(2));
    while piece > 0 {
        let shorter = Story { steps: Some(kept.saturating_sub(piece)), ..best.clone() };
        if kept >= piece && try_out(shorter, &mut best) {
            kept -= piece;
        } else {
            piece /= 2;
        }
    }
    if story.is_wide() {
        let mut left = machines;
        while left > 1 && try_out(Story { machines: Some(left - 1), ..best.clone() }, &mut best) {
            left -= 1;
        }
        let mut piece = kept.div_ceil(2);
        while piece > 0 {
            for first in (0..kept).step_by(usize::try_from(piece).unwrap_or(1)) {
                let mut part = best.clone();
                part.without.extend(first..(first + piece).min(kept));
                if part.without.len() > best.without.len() {
                    try_out(part, &mut best);
                }
            }
            piece /= 2;
        }
    }
    (best, runs)
}
