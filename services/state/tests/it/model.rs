//! Random announcements, uploads, confirmations and ends of runs, compared with a model that knows
//! only two facts: who holds which roots, and that what cannot be reached from a root is gone.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use flwr_api::{ObjectId, Phase, RunId, RunStatus, SubStatus};
use flwr_state::conformance::{Made, at, made, new_run};
use flwr_state::{Mailbox, MemoryState, Object, Objects, Put, Runs};
use flwr_transport::Body;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

/// Objects of a universe: leaves first, then objects made of those before them.
const OBJECTS: usize = 12;

/// Runs at the same time.
const RUNS: u64 = 3;

#[derive(Clone, Debug)]
enum Step {
    Announce(Index, Vec<Index>),
    Put(Index),
    Confirm(Index, Index),
    /// Ends a run and begins it anew under another id.
    Finish(Index),
}

/// What there is, as simply as can be said.
#[derive(Default)]
struct Model {
    holds: BTreeSet<(RunId, ObjectId)>,
    content: BTreeMap<ObjectId, u64>,
    /// What went because it was confirmed.
    gone: HashSet<ObjectId>,
}

impl Model {
    /// Every object that can be reached, and nothing else, is kept.
    fn known(&self, universe: &[Made]) -> HashSet<ObjectId> {
        let held = |made: &&Made| self.holds.iter().any(|(_, id)| *id == made.tree.id);
        let ids = |made: &Made| made.objects.iter().map(|(id, _)| *id).collect::<Vec<_>>();
        universe.iter().filter(held).flat_map(ids).collect()
    }

    fn sweep(&mut self, universe: &[Made], is_confirmed: bool) {
        let known = self.known(universe);
        let went = self.content.extract_if(.., |id, _| !known.contains(id));
        let went: Vec<_> = went.map(|(id, _)| id).collect();
        if is_confirmed {
            self.gone.extend(went);
        }
    }

    fn missing(&self, trees: &[&Made]) -> Vec<ObjectId> {
        let mut missing = Vec::new();
        for (id, _) in trees.iter().flat_map(|made| &made.objects) {
            if !self.content.contains_key(id) && !missing.contains(id) {
                missing.push(*id);
            }
        }
        missing
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn objects_live_exactly_as_long_as_they_can_be_reached(
        shape in vec(vec(any::<Index>(), 0..4), OBJECTS),
        steps in vec(step(), 1..80),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(compare(&universe(&shape), steps));
    }
}

fn step() -> impl Strategy<Value = Step> {
    let index = any::<Index>;
    prop_oneof![
        3 => (index(), vec(index(), 1..4)).prop_map(|(run, roots)| Step::Announce(run, roots)),
        6 => index().prop_map(Step::Put),
        3 => (index(), index()).prop_map(|(run, root)| Step::Confirm(run, root)),
        1 => index().prop_map(Step::Finish),
    ]
}

fn universe(shape: &[Vec<Index>]) -> Vec<Made> {
    let mut universe: Vec<Made> = Vec::new();
    for (number, children) in shape.iter().enumerate() {
        let below: Vec<Made> = if universe.is_empty() {
            Vec::new()
        } else {
            children
                .iter()
                .map(|child| child.get(&universe).clone())
                .collect()
        };
        universe.push(made(&number.to_string(), &below.iter().collect::<Vec<_>>()));
    }
    universe
}

async fn compare(universe: &[Made], steps: Vec<Step>) {
    let state = MemoryState::default();
    let mut model = Model::default();
    let mut runs: Vec<RunId> = (1..=RUNS).map(RunId).collect();
    for run in &runs {
        begin(&state, *run).await;
    }
    for step in steps {
        let is_confirmed = matches!(step, Step::Confirm(..));
        match step {
            Step::Announce(run, roots) => {
                let run = *run.get(&runs);
                let roots: Vec<&Made> = roots.iter().map(|root| root.get(universe)).collect();
                let trees: Vec<_> = roots.iter().map(|root| root.tree.clone()).collect();
                let missing = state.announce(run, &trees).await.unwrap();
                assert_eq!(missing, model.missing(&roots));
                model
                    .holds
                    .extend(roots.iter().map(|root| (run, root.tree.id)));
            }
            Step::Put(object) => {
                let (id, bytes) = object.get(universe).objects.last().unwrap().clone();
                let expected = if !model.known(universe).contains(&id) {
                    if model.gone.contains(&id) {
                        Put::Present
                    } else {
                        Put::Unannounced
                    }
                } else if model.content.insert(id, bytes.len() as u64).is_some() {
                    Put::Present
                } else {
                    Put::Stored
                };
                let put = state.put_object(id, Body::from_bytes(bytes)).await.unwrap();
                assert_eq!(put, expected);
            }
            Step::Confirm(run, root) => {
                let (run, id) = (*run.get(&runs), root.get(universe).tree.id);
                state.confirm(run, id).await.unwrap();
                model.holds.remove(&(run, id));
            }
            Step::Finish(index) => {
                let slot = index.index(runs.len());
                end(&state, runs[slot]).await;
                model.holds.retain(|(run, _)| *run != runs[slot]);
                runs[slot] = RunId(runs[slot].0 + RUNS);
                begin(&state, runs[slot]).await;
            }
        }
        model.sweep(universe, is_confirmed);
        agree(&state, &model, universe).await;
    }
    for run in runs {
        end(&state, run).await;
    }
    assert_eq!(state.object_totals().await.unwrap(), (0, 0));
}

async fn agree(state: &MemoryState, model: &Model, universe: &[Made]) {
    let known = model.known(universe);
    for made in universe {
        let id = made.tree.id;
        match state.object(id).await.unwrap() {
            Object::Available(_) => assert!(model.content.contains_key(&id)),
            Object::Pending => assert!(known.contains(&id) && !model.content.contains_key(&id)),
            Object::Unknown => assert!(!known.contains(&id)),
        }
    }
    let bytes = model.content.values().sum();
    assert_eq!(state.object_totals().await.unwrap(), (known.len(), bytes));
}

async fn begin(state: &MemoryState, id: RunId) {
    assert!(state.create_run(new_run(id), at(0.0)).await.unwrap());
    for phase in [Phase::Starting, Phase::Running] {
        state
            .move_run(id, RunStatus::of(phase), at(0.0))
            .await
            .unwrap();
    }
}

async fn end(state: &MemoryState, run: RunId) {
    let status = RunStatus::finished(SubStatus::Completed, "");
    state.move_run(run, status, at(0.0)).await.unwrap();
}
