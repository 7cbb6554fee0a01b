//! Rules every back end must keep.
//!
//! Each rule is a function over a factory of empty states. A back end runs all of them with one
//! line in its tests, `flwr_state::conformance!(async || MyState::open().await);`. A rule that was
//! learned from a bug is added here, once.
//!
//! Numbers in the documentation of rules are those of the conformance list that `ARCHITECTURE.md`
//! names; time is always given, so nothing here sleeps.

#![expect(clippy::unwrap_used, reason = "the rules are tests")]

mod fixtures;

pub mod census;
pub mod instructions;
pub mod leases;
pub mod logs;
pub mod nodes;
pub mod objects;
pub mod replies;
pub mod reply_rules;
pub mod runs;
pub mod tokens;
pub mod uploads;
pub mod wakeups;

pub use fixtures::{Made, at, made, new_node, new_run};

/// Makes one test of each rule for the back end that `$new`, an async closure, makes states of. `across_processes` leaves
/// out those about what belongs to one process.
#[macro_export]
macro_rules! conformance {
    ($new:expr) => {
        $crate::conformance!(across_processes $new);
        $crate::conformance!(@group $new, uploads: [
            an_object_goes_on_where_it_broke_off,
            a_rest_that_does_not_fit_spoils_nothing,
        ]);
    };
    (across_processes $new:expr) => {
        $crate::conformance!(@group $new, nodes: [
            a_node_is_listed_until_its_interval_has_passed,
            a_beat_extends_to_twice_the_interval,
            odd_intervals_count_as_nothing,
            an_id_belongs_to_one_node,
            a_deleted_node_is_gone_at_once,
            a_key_finds_its_node,
            a_repeated_request_keeps_its_id,
            a_key_in_use_is_refused,
            a_node_that_came_back_replaces_its_former_self,
            a_deleted_node_frees_its_key,
            nodes_that_stay_away_are_swept,
        ]);
        $crate::conformance!(@group $new, runs: [
            a_run_is_kept_as_submitted,
            runs_are_listed_in_the_order_of_their_submission,
            every_transition_follows_the_table,
            times_are_set_on_entry,
            runs_wait_for_launch_while_pending,
            a_run_that_finishes_takes_its_messages_and_objects_along,
            nothing_is_kept_for_a_run_that_is_not_open,
            runs_that_finished_long_ago_are_forgotten,
        ]);
        $crate::conformance!(@group $new, leases: [
            a_run_without_heartbeat_lives_on_its_first_lease,
            a_heartbeat_extends_the_lease,
            only_starting_and_running_runs_beat,
            every_reader_sees_that_a_lease_has_passed,
            a_lost_run_takes_its_messages_and_objects_along,
            the_next_lease_end_is_when_something_happens,
        ]);
        $crate::conformance!(@group $new, tokens: [
            a_run_is_claimed_once,
            only_pending_runs_are_claimed,
            a_launch_that_takes_too_long_loses_its_claim,
            a_token_starts_its_run,
            a_stopped_run_does_not_start,
            outputs_need_the_token_and_a_running_run,
            a_token_is_given_back_once,
            a_token_names_its_run,
        ]);
        $crate::conformance!(@group $new, instructions: [
            an_instruction_is_handed_out_with_its_tree,
            an_instruction_is_offered_until_it_is_confirmed,
            instructions_come_in_the_order_of_their_arrival,
            an_instruction_waits_for_its_last_object,
            a_node_is_told_of_what_is_on_its_way,
            nodes_get_only_their_own_instructions,
            expired_instructions_are_not_handed_out,
            an_instruction_without_a_tree_is_dropped,
            an_instruction_waits_until_its_run_is_running,
            unknown_destinations_are_told_and_offline_ones_served,
            an_instruction_can_be_sent_again_to_a_node_that_joined_since,
            an_instruction_is_stored_once,
            an_answered_instruction_is_not_handed_out,
            a_node_that_is_still_fetching_is_not_cut_off,
            other_runs_do_not_disturb_a_delivery,
        ]);
        $crate::conformance!(@group $new, reply_rules: [
            a_reply_is_stored_once,
            the_first_complete_reply_stands,
            an_unfinished_reply_gives_way_to_the_next,
            replies_that_break_a_rule_are_not_stored,
            a_reply_is_the_reply_to_one_instruction,
            a_reply_may_outlive_its_instruction_a_little,
            confirming_an_instruction_does_not_hinder_its_reply,
            objects_of_refused_replies_do_not_pile_up,
            a_reply_that_was_refused_can_be_taken_later,
        ]);
        $crate::conformance!(@group $new, replies: [
            a_reply_is_handed_out_until_it_is_confirmed,
            an_incomplete_reply_is_waited_for,
            each_id_yields_at_most_one_result_in_the_order_asked,
            unknown_ids_yield_errors,
            an_instruction_that_was_asked_for_too_early_is_kept,
            expired_instructions_yield_errors,
            nodes_that_are_gone_yield_errors,
            expired_replies_yield_errors,
            errors_are_objects,
            an_error_is_the_reply_from_then_on,
            a_complete_reply_outlives_its_node,
            a_reply_handed_out_does_not_expire,
            replies_of_other_runs_are_out_of_reach,
            waiting_ends_at_the_announced_time,
            two_runs_can_ask_for_the_same_unknown_id,
        ]);
        $crate::conformance!(@group $new, objects: [
            only_objects_without_bytes_are_asked_for,
            an_object_is_unknown_then_pending_then_available,
            bytes_are_checked_before_they_are_kept,
            bytes_may_come_in_pieces,
            a_body_that_breaks_off_leaves_nothing,
            an_object_that_was_confirmed_may_be_pushed_again,
            a_shared_object_lives_as_long_as_its_last_parent,
            a_broadcast_is_kept_once,
            objects_with_children_below_children_are_freed_whole,
            an_object_is_shared_between_runs,
            confirming_a_part_of_a_message_frees_nothing,
            hostile_trees_are_left_out,
            announcing_and_freeing_at_once_loses_nothing,
        ]);
        $crate::conformance!(@group $new, logs: [
            entries_come_after_a_time,
            entries_have_distinct_times,
            logs_are_kept_in_every_status,
            old_entries_go_when_a_log_is_full,
        ]);
        $crate::conformance!(@group $new, census: [
            nothing_is_counted_of_nothing,
            nodes_are_counted_by_their_heartbeats,
            runs_are_counted_by_status,
            an_instruction_counts_where_it_is,
        ]);
        $crate::conformance!(@group $new, wakeups: [
            nodes_wake_when_an_instruction_is_ready,
            nodes_wake_when_their_run_is_running,
            runs_wake_when_a_reply_is_complete,
            runs_wake_when_an_instruction_is_dropped,
            runs_wake_when_a_node_goes,
            runs_and_logs_wake_when_a_status_changes,
            objects_wake_when_they_come_and_go,
            launchers_wake_when_a_run_is_submitted,
            logs_wake_when_they_grow,
        ]);
    };
    (@group $new:expr, $group:ident: [$($rule:ident),* $(,)?]) => {
        mod $group {
            #[allow(unused_imports, reason = "the factory may need nothing from outside")]
            use super::*;

            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $rule() {
                    $crate::conformance::$group::$rule($new).await;
                }
            )*
        }
    };
}
