//! Whose turn it is: what a claim takes of which lane.
//!
//! Tenants take turns, whatever they ask for; within a tenant the lanes of the highest priority go first, and of those
//! the pipelines take turns. A lane is known from the claim that found it to the one that finds it empty, so what this
//! holds is what is in use. Pure: it knows no database.

use std::collections::{BTreeMap, HashMap};

use crate::store::{
    lanes::{Lane, LaneId},
    queue::{ClaimPosition, Claimed, LaneSearch, LaneShare, Reached, Served},
};

/// The lanes that a worker knows.
#[derive(Default)]
pub(super) struct Lanes {
    served: Served,
    known: BTreeMap<LaneId, Known>,
    /// What lanes are never changes.
    described: HashMap<LaneId, Lane>,
    /// Counts claims: who has the one job more that cannot be divided is drawn anew for each.
    turn: u64,
}

/// Between two searches.
enum Known {
    /// Has jobs after this position, as far as is known.
    Active(ClaimPosition),
    /// Had no more when it was found, in this turn. That it is known a little longer is for the sake of others: a search
    /// finds one lane between each two.
    Emptied(u64),
    /// Has jobs, and none for us: its queue is paused, or others have them.
    Resting,
    /// Other workers serve it.
    Foreign,
}

impl Lanes {
    /// Of a worker that serves these.
    pub(super) fn new(served: Served) -> Self {
        Self { served, ..Self::default() }
    }

    /// What the worker serves.
    pub(super) fn served(&self) -> &Served {
        &self.served
    }

    /// How `free` jobs are divided among the lanes; none is left out that could have one, but for want of jobs.
    pub(super) fn share(&mut self, free: usize) -> Vec<LaneShare> {
        self.turn = self.turn.wrapping_add(1);
        let mut tenants: BTreeMap<&str, (i16, BTreeMap<_, Vec<LaneId>>)> = BTreeMap::new();
        for id in self.active() {
            let Some(lane) = self.described.get(&id) else { continue };
            let priority = lane.route.priority;
            let (highest, pipelines) = tenants.entry(&*lane.tenant).or_insert_with(|| (priority, BTreeMap::new()));
            if priority > *highest {
                (*highest, *pipelines) = (priority, BTreeMap::new());
            }
            if priority == *highest {
                pipelines.entry(lane.pipeline).or_default().push(id);
            }
        }
        let mut shares = Vec::new();
        // A draw for each level: whoever is first among the tenants must not be so among its pipelines every time.
        let (tenant, pipeline, lane) = (draw(self.turn, 0), draw(self.turn, 1), draw(self.turn, 2));
        for ((_, pipelines), free) in deal(free, tenant, tenants.into_values().collect()) {
            for (lanes, free) in deal(free, pipeline, pipelines.into_values().collect()) {
                shares.extend(deal(free, lane, lanes));
            }
        }
        let share = |(lane, most): (LaneId, usize)| match self.known.get(&lane) {
            Some(Known::Active(after)) => Some(LaneShare { lane, most: most as i64, after: *after }),
            _ => None,
        };
        shares.into_iter().filter_map(share).collect()
    }

    /// Whether any lane can be claimed from.
    pub(super) fn is_empty(&self) -> bool {
        self.active().next().is_none()
    }

    fn active(&self) -> impl Iterator<Item = LaneId> {
        self.known.iter().filter(|(_, known)| matches!(known, Known::Active(_))).map(|(lane, _)| *lane)
    }

    /// Looks for lanes that are not known, taking at most `free` jobs in all from those that are found.
    pub(super) fn search(&self, free: usize) -> LaneSearch {
        let lows = std::iter::once(BEFORE_ALL).chain(self.known.keys().map(|lane| lane.0));
        let highs = self.known.keys().map(|lane| lane.0).chain([i32::MAX]);
        let mut gaps: Vec<(i32, i32)> = lows.zip(highs).filter(|(low, high)| high - 1 > *low).collect();
        // All of them in time: another part of them each turn.
        let parts = gaps.len().div_ceil(free.max(1)).max(1);
        let part = gaps.len().div_ceil(parts);
        gaps = gaps.into_iter().skip(self.turn as usize % parts * part).take(part).collect();
        let each_found = (free / gaps.len().max(1)) as i64;
        LaneSearch { gaps, each_found }
    }

    /// Lanes of which nothing is known but their ids.
    pub(super) fn unknown(&self, claimed: &Claimed) -> Vec<LaneId> {
        claimed.reached.keys().filter(|lane| !self.described.contains_key(lane)).copied().collect()
    }

    /// What lanes are.
    pub(super) fn describe(&mut self, lanes: Vec<(LaneId, Lane)>) {
        self.described.extend(lanes);
    }

    /// Takes note of how far a claim went.
    pub(super) fn note(&mut self, asked: &[LaneShare], search: &LaneSearch, claimed: &Claimed) {
        let turn = self.turn;
        self.known.retain(|_, known| !matches!(known, Known::Emptied(since) if turn - *since >= TURNS_EMPTIED));
        let asked: HashMap<LaneId, &LaneShare> = asked.iter().map(|share| (share.lane, share)).collect();
        for (lane, reached) in &claimed.reached {
            match asked.get(lane) {
                Some(share) => self.note_asked(share, reached),
                None => self.note_found(*lane, search.each_found, reached),
            }
        }
    }

    fn note_asked(&mut self, share: &LaneShare, reached: &Reached) {
        if reached.jobs >= share.most {
            self.known.insert(share.lane, Known::Active(reached.position));
        } else if share.after == ClaimPosition::START {
            self.known.remove(&share.lane);
        } else {
            // What came late stands before the position.
            self.known.insert(share.lane, Known::Active(ClaimPosition::START));
        }
    }

    /// A lane that could not be described is found again.
    fn note_found(&mut self, lane: LaneId, most: i64, reached: &Reached) {
        let Some(described) = self.described.get(&lane) else { return };
        let known = match self.served.takes(&described.route) {
            false => Known::Foreign,
            true if reached.jobs == 0 => Known::Resting,
            true if reached.jobs < most => Known::Emptied(self.turn),
            true => Known::Active(reached.position),
        };
        self.known.insert(lane, known);
    }

    /// Looks again at lanes that were emptied: time has passed.
    pub(super) fn forget_emptied(&mut self) {
        self.known.retain(|_, known| !matches!(known, Known::Emptied(_)));
    }

    /// Looks again at lanes that had nothing for us.
    pub(super) fn end_rest(&mut self) {
        self.known.retain(|_, known| !matches!(known, Known::Resting | Known::Emptied(_)));
    }

    /// Looks at every lane from its start again.
    pub(super) fn start_over(&mut self) {
        self.end_rest();
        for known in self.known.values_mut() {
            if let Known::Active(position) = known {
                *position = ClaimPosition::START;
            }
        }
    }
}

/// Claims after which an emptied lane is looked at again: with two, what each claim finds grows as it would if nothing were
/// forgotten, and a job that comes to such a lane meanwhile waits no longer than these.
const TURNS_EMPTIED: u64 = 2;
/// No lane's id.
const BEFORE_ALL: i32 = -1;

/// Divides what is free among some; who has one more than others begins with the one that was drawn. Who has none is left
/// out.
fn deal<T>(free: usize, drawn: u64, among: Vec<T>) -> Vec<(T, usize)> {
    let count = among.len().max(1);
    let (each, extra) = (free / count, free % count);
    let first = (drawn % count as u64) as usize;
    let shares = among.into_iter().enumerate().map(|(place, one)| {
        let has_more = (place + count - first) % count < extra;
        (one, each + usize::from(has_more))
    });
    shares.filter(|(_, share)| *share > 0).collect()
}

/// A number that looks random: the finalizer of SplitMix64 (Steele, Lea and Flood, 2014).
fn draw(turn: u64, level: u64) -> u64 {
    let mut z = (turn * 3 + level).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use uuid::Uuid;

    use super::*;
    use crate::{
        id::{JobId, PipelineId},
        pipeline::policy::Route,
    };

    /// Lanes by tenant, pipeline and priority, each with jobs.
    fn lanes(described: &[(&str, u128, i16)]) -> Lanes {
        let mut lanes = Lanes::default();
        for (id, (tenant, pipeline, priority)) in (1..).zip(described) {
            let route = Route { priority: *priority, ..Route::default() };
            let lane = Lane { tenant: (*tenant).to_owned(), pipeline: PipelineId(Uuid::from_u128(*pipeline)), route };
            lanes.describe(vec![(LaneId(id), lane)]);
            lanes.known.insert(LaneId(id), Known::Active(ClaimPosition::START));
        }
        lanes
    }

    fn shares(lanes: &mut Lanes, free: usize) -> Vec<(i32, i64)> {
        lanes.share(free).into_iter().map(|share| (share.lane.0, share.most)).collect()
    }

    #[test]
    fn tenants_have_the_same_whatever_they_ask_for() {
        let mut lanes = lanes(&[("a", 1, 0), ("a", 2, 0), ("a", 3, 0), ("b", 4, -9)]);
        assert_eq!(shares(&mut lanes, 12), [(1, 2), (2, 2), (3, 2), (4, 6)]);
    }

    #[test]
    fn a_tenants_highest_priority_goes_first() {
        let mut lanes = lanes(&[("a", 1, 0), ("a", 1, 5), ("a", 2, 5), ("b", 4, 0)]);
        assert_eq!(shares(&mut lanes, 8), [(2, 2), (3, 2), (4, 4)]);
    }

    #[test]
    fn a_pipeline_has_no_more_for_having_many_queues() {
        let mut lanes = lanes(&[("a", 1, 0), ("a", 2, 0), ("a", 2, 0), ("a", 2, 0)]);
        assert_eq!(shares(&mut lanes, 12), [(1, 6), (2, 2), (3, 2), (4, 2)]);
    }

    #[test]
    fn everybody_has_a_turn_when_there_is_less_than_one_for_each() {
        let described = [("a", 1, 0), ("a", 2, 0), ("b", 3, 0), ("b", 3, 0), ("c", 4, 0)];
        let mut lanes = lanes(&described);
        let mut taken: HashMap<i32, i64> = HashMap::new();
        for _turn in 0..600 {
            for (lane, most) in shares(&mut lanes, 1) {
                *taken.entry(lane).or_default() += most;
            }
        }
        // A third each, and of that a half.
        for (lane, expected) in [(1, 100), (2, 100), (3, 100), (4, 100), (5, 200)] {
            let jobs = taken.get(&lane).copied().unwrap_or(0);
            assert!((expected * 3 / 4..expected * 5 / 4).contains(&jobs), "lane {lane}: {jobs} of {taken:?}");
        }
    }

    #[test]
    fn what_is_dealt_is_what_is_free() {
        for (free, drawn) in (0..40).flat_map(|free| (0..9).map(move |drawn| (free, drawn))) {
            let dealt = deal(free, drawn, (0..=drawn).collect());
            assert_eq!(dealt.iter().map(|(_, share)| share).sum::<usize>(), free);
        }
    }

    #[test]
    fn who_knows_no_lane_searches_everywhere() {
        assert_eq!(Lanes::default().search(8), LaneSearch { gaps: vec![(-1, i32::MAX)], each_found: 8 });
    }

    #[test]
    fn a_search_leaves_out_what_is_known_and_takes_no_more_than_is_free() {
        let mut lanes = lanes(&[("a", 1, 0), ("a", 2, 0)]);
        // Between 1 and 2 there is nothing.
        let search = lanes.search(8);
        assert_eq!(search, LaneSearch { gaps: vec![(-1, 1), (2, i32::MAX)], each_found: 4 });
        let mut searched = BTreeSet::new();
        for _turn in 0..2 {
            let search = lanes.search(1);
            assert_eq!((search.gaps.len(), search.each_found), (1, 1));
            searched.extend(search.gaps);
            lanes.share(1);
        }
        assert_eq!(searched.len(), 2, "each gap has its turn");
    }

    /// A claim that was answered with so many jobs of each lane.
    fn claimed(taken: &[(i32, i64)]) -> Claimed {
        let mut claimed = Claimed::default();
        for (lane, jobs) in taken {
            let position = ClaimPosition::after_job(JobId::new());
            claimed.reached.insert(LaneId(*lane), Reached { jobs: *jobs, position });
        }
        claimed
    }

    #[test]
    fn an_empty_lane_is_forgotten_once_it_was_read_from_its_start() {
        let mut lanes = lanes(&[("a", 1, 0)]);
        let asked = lanes.share(4);
        lanes.note(&asked, &LaneSearch::default(), &claimed(&[(1, 4)]));
        let asked = lanes.share(4);
        assert_ne!(asked[0].after, ClaimPosition::START, "it goes on where it stopped");
        lanes.note(&asked, &LaneSearch::default(), &claimed(&[(1, 0)]));
        let asked = lanes.share(4);
        assert_eq!(asked[0].after, ClaimPosition::START, "something may have come late");
        lanes.note(&asked, &LaneSearch::default(), &claimed(&[(1, 0)]));
        assert!(lanes.is_empty() && lanes.known.is_empty());
    }

    fn search(each_found: i64) -> LaneSearch {
        LaneSearch { gaps: vec![(BEFORE_ALL, i32::MAX)], each_found }
    }

    #[test]
    fn a_lane_that_a_search_emptied_is_not_asked_again_and_hides_for_two_claims() {
        for (taken, is_active) in [(4, true), (3, false)] {
            let mut lanes = lanes(&[("a", 1, 0)]);
            lanes.known.clear();
            lanes.note(&[], &search(4), &claimed(&[(1, taken)]));
            assert_eq!(!lanes.is_empty(), is_active, "{taken} of 4");
            assert_eq!(lanes.search(8).gaps.len(), 2, "others are found on both sides of it");
            for _claim in 0..TURNS_EMPTIED {
                lanes.share(4);
            }
            lanes.note(&[], &search(4), &claimed(&[]));
            assert_eq!(lanes.search(8).gaps.len(), if is_active { 2 } else { 1 });
        }
    }

    #[test]
    fn a_lane_without_jobs_for_us_rests_until_the_next_start() {
        let mut lanes = lanes(&[("a", 1, 0)]);
        lanes.known.clear();
        lanes.note(&[], &search(4), &claimed(&[(1, 0)]));
        assert!(lanes.is_empty());
        assert_eq!(lanes.search(8).gaps, [(-1, 1), (1, i32::MAX)], "it does not hide those beside it");
        lanes.start_over();
        assert_eq!(lanes.search(8).gaps, [(-1, i32::MAX)]);
    }

    #[test]
    fn a_lane_of_other_workers_is_never_asked() {
        let queue = |name: &str| Route { queue: name.into(), ..Route::default() };
        let tagged = Route { tags: BTreeSet::from(["gpu".to_owned()]), ..queue("mine") };
        let lane = |route| Lane { tenant: "a".into(), pipeline: PipelineId::new(), route };
        for (route, tags, served) in [
            (queue("mine"), vec![], true),
            (queue("theirs"), vec![], false),
            (tagged.clone(), vec![], false),
            (tagged, vec!["big".to_owned(), "gpu".to_owned()], true),
        ] {
            let mut lanes = Lanes::new(Served { queues: Some(vec!["mine".into()]), tags });
            lanes.describe(vec![(LaneId(1), lane(route.clone()))]);
            lanes.note(&[], &search(1), &claimed(&[(1, i64::from(served))]));
            lanes.start_over();
            assert_eq!(!lanes.is_empty(), served, "{route:?}");
            assert_eq!(lanes.search(8).gaps.len(), 2, "it is known");
        }
    }
}
