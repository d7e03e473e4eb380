//! Time and exec bit: they are merged field by field and never make a copy.

use crate::case::{both_ways, case};

#[test]
fn r30_a_change_of_time_or_exec_bit_alone_moves_no_bytes() {
    case("a=1", "", "a=1@5").becomes("a=1@5").does("meta a").sends(false);
    case("a=1", "", "a=1!").becomes("a=1!").does("meta a").sends(false);
    case("a=1!", "", "a=1").becomes("a=1").does("meta a").sends(false);
    case("a=1", "a=1@5!", "").becomes("a=1@5!").does("").sends(true);
}

#[test]
fn r31_two_times_are_no_conflict_and_the_server_has_the_last_word() {
    case("a=1", "a=1@5", "a=1@9").becomes("a=1@9").without_copies().does("meta a").sends(false);
    case("a=1", "a=1@9", "a=1@5").becomes("a=1@5").without_copies().does("meta a").sends(false);
}

#[test]
fn r32_a_new_exec_bit_on_one_side_and_a_new_time_on_the_other_are_both_kept() {
    both_ways("a=1", "a=1!", "a=1@5", "a=1@5!");
}

#[test]
fn r33_a_new_exec_bit_on_one_side_and_new_bytes_on_the_other_are_both_kept() {
    both_ways("a=1", "a=1!", "a=2@5", "a=2@5!");
    both_ways("a=1!", "a=1", "a=2@5!", "a=2@5");
}

#[test]
fn r34_new_bytes_bring_their_own_time() {
    both_ways("a=1", "a=1@9", "a=2@5", "a=2@5");
}

#[test]
fn r35_the_same_new_bytes_with_two_times_are_one_file_with_the_time_of_the_server() {
    case("a=1", "a=2@5", "a=2@9").becomes("a=2@9").without_copies().does("meta a").sends(false);
}

#[test]
fn r36_a_change_of_time_or_exec_bit_beats_a_delete() {
    both_ways("a=1", "a=1@5", "-a", "a=1@5");
    both_ways("a=1", "a=1!", "-a", "a=1!");
}

#[test]
fn r37_a_conflict_copy_keeps_the_time_and_exec_bit_it_had_here() {
    case("a=1", "a=2@5!", "a=3@9").becomes("a=3@9 a{pc}=2@5!");
}
