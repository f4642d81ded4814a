//! One contract for every form of the store: what the trait promises, asked of each form in the same words.
//!
//! A rule is an async function generic over [`Form`](harness::Form); the list in `contract!` says which there are. To hold
//! another form against the contract, implement `Form` for it and add one line at the end of this file.

mod accepting;
mod erasing;
mod harness;
mod lasting;
mod listing;
mod model;
mod replaying;
mod scheduling;
mod settling;
mod standing;
#[path = "../support/store.rs"]
mod store;

use std::sync::Arc;

use harness::{Form, ManualClock};
use postrider::core::limits::StoreLimits;
use postrider::env::{Clock, SeededEntropy};
use postrider::store::embedded::{EmbeddedStore, Opening};
use postrider::store::memory::MemoryStore;

macro_rules! rules {
    ($form:ty; $($module:ident { $($rule:ident),* $(,)? })*) => {$(
        mod $module {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $rule() {
                    crate::$module::$rule::<$form>().await;
                }
            )*
        }
    )*};
}

macro_rules! contract {
    ($name:ident, $form:ty) => {
        mod $name {
            #[test]
            fn random_operations_answer_as_the_model_does() {
                crate::model::random_operations_answer_as_the_model_does::<$form>();
            }

            rules! { $form;
                accepting {
                    an_event_is_stored_as_it_came,
                    an_event_without_takers_is_stored,
                    what_nobody_accepted_is_unknown,
                    a_taken_key_answers_with_the_first_event,
                    keys_are_claimed_together_or_not_at_all,
                    the_first_taken_key_in_the_given_order_answers,
                    a_key_is_its_scope_and_its_hash,
                    a_key_is_free_again_at_the_very_millisecond_its_window_ends,
                    of_concurrent_accepts_under_one_key_one_is_new,
                    each_answer_is_visible_at_once_under_concurrency,
                    ids_are_in_commit_order_though_the_clock_steps_back,
                    what_is_too_large_claims_nothing,
                    intake_closes_when_too_many_are_pending,
                }
                settling {
                    a_success_delivers,
                    a_retry_waits_for_its_time,
                    a_final_failure_is_a_dead_letter,
                    gone_disables_an_enabled_endpoint,
                    gone_leaves_an_operators_word_and_an_unknown_endpoint_alone,
                    a_second_settle_is_stale,
                    of_concurrent_settles_one_counts,
                    a_settle_of_what_does_not_exist_is_stale,
                    a_settle_after_the_delivery_was_redriven_is_stale,
                    a_settle_after_erasure_is_stale,
                    a_settle_after_removal_is_stale,
                    attempts_are_listed_in_order_with_their_responses,
                }
                scheduling {
                    pending_is_in_order_of_time_and_shows_the_future,
                    pending_is_paged_without_gaps,
                    every_pending_change_is_told,
                    whoever_follows_a_hint_finds_the_change,
                    the_oldest_pending_event_is_known,
                }
                replaying {
                    a_dead_letter_becomes_due_with_a_fresh_schedule,
                    a_delivered_one_becomes_due_and_counts_on,
                    a_waiting_one_becomes_due_now,
                    what_is_due_already_stays_as_it_is,
                    what_never_was_cannot_be_replayed,
                    a_removed_endpoint_gets_nothing_but_a_disabled_one_does,
                }
                erasing {
                    erasure_empties_bytes_and_keeps_the_record,
                    erasure_buries_what_is_pending,
                    erasing_again_changes_nothing,
                    erasure_beats_a_concurrent_replay,
                    no_reader_finds_erased_content_again,
                    an_erased_event_still_holds_its_keys,
                }
                standing {
                    a_note_changes_only_when_the_standing_does,
                    every_change_of_standing_is_told,
                    removal_buries_the_pending_deliveries_of_that_endpoint_alone,
                    removal_again_buries_what_came_meanwhile,
                    disabling_leaves_the_backlog,
                    a_removed_endpoint_can_come_back,
                }
                listing {
                    events_are_filtered_by_everything_that_was_asked,
                    events_are_paged_in_both_directions,
                    a_cursor_need_not_exist,
                    commits_during_a_walk_neither_skip_nor_repeat,
                    dead_letters_are_filtered_by_endpoint_and_time,
                    dead_letters_are_paged_in_both_directions,
                }
                lasting {
                    everything_is_there_after_reopening,
                    keys_and_order_outlast_reopening_under_an_earlier_clock,
                    a_settle_can_end_what_began_before_reopening,
                }
            }
        }
    };
}

/// The model itself. It forgets everything when it is closed, so that it cannot be reopened.
struct InMemory(Arc<MemoryStore>);

impl Form for InMemory {
    type S = MemoryStore;

    async fn open(clock: Arc<ManualClock>, limits: StoreLimits) -> Self {
        // Engine time: the wall clock at the start, carried on by the steady one.
        let (wall_ms, mono_ms) = (clock.wall_ms(), clock.mono_ms());
        Self(Arc::new(MemoryStore::new(move || wall_ms + clock.mono_ms() - mono_ms, limits)))
    }

    fn store(&self) -> Arc<MemoryStore> {
        Arc::clone(&self.0)
    }

    async fn reopen(self) -> (Self, bool) {
        (self, false)
    }
}

contract!(memory, crate::InMemory);

/// The embedded form, on the machine's own disk.
struct Embedded {
    store: Arc<EmbeddedStore>,
    clock: Arc<ManualClock>,
    limits: StoreLimits,
    dir: tempfile::TempDir,
}

impl Embedded {
    fn open_in(dir: tempfile::TempDir, clock: Arc<ManualClock>, limits: StoreLimits) -> Self {
        let opening = Opening {
            data: dir.path().to_owned(),
            limits: limits.clone(),
            clock: clock.clone(),
            entropy: Arc::new(SeededEntropy::new(7)),
            rebuild: false,
            progress: &mut |_, _| {},
        };
        Self { store: Arc::new(EmbeddedStore::open(opening).unwrap()), clock, limits, dir }
    }
}

impl Form for Embedded {
    type S = EmbeddedStore;

    const CASES: u32 = 12;

    async fn open(clock: Arc<ManualClock>, limits: StoreLimits) -> Self {
        Self::open_in(tempfile::tempdir().unwrap(), clock, limits)
    }

    fn store(&self) -> Arc<EmbeddedStore> {
        Arc::clone(&self.store)
    }

    async fn reopen(self) -> (Self, bool) {
        let Self { store, clock, limits, dir } = self;
        store.close();
        drop(store);
        (Self::open_in(dir, clock, limits), true)
    }
}

contract!(embedded, crate::Embedded);
