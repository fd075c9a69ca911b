//! One `[schedules.NAME]` section. Whether the pipeline has its assets is [`super::super::validate`]'s business.

use super::{
    super::{
        definition::name_mistake,
        diagnostic::shown,
        fire_times::{FireTimes, FireTimesError},
        schedule::{FirePartition, Misfire, Schedule},
    },
    reader::{Entry, Reader, Section},
};
use crate::limit::{ASSETS_PER_PIPELINE_MAX, CATCH_UP_MAX, CRON_BYTES_MAX, SCHEDULES_PER_PIPELINE_MAX};

const PARTITIONS: [(&str, FirePartition); 2] =
    [("previous", FirePartition::Previous), ("current", FirePartition::Current)];
const MISFIRES: [(&str, Misfire); 2] = [("skip", Misfire::Skip), ("run-once", Misfire::RunOnce)];

/// How a pattern is written.
const CRON_FIX: &str = "write minute, hour, day of the month, month and day of the week, for example \"0 6 * * *\"";

/// Reads `[schedules]`.
pub(super) fn read_schedules<'a>(
    reader: &mut Reader<'a>,
    root: &Section<'a>,
) -> std::collections::BTreeMap<String, Schedule> {
    let mut schedules = std::collections::BTreeMap::new();
    let Some(table) = root.get("schedules").and_then(|entry| reader.table(entry)) else { return schedules };
    if table.entries.len() > SCHEDULES_PER_PIPELINE_MAX {
        let message =
            format!("{} schedules are more than the {SCHEDULES_PER_PIPELINE_MAX} of a pipeline", table.entries.len());
        reader.refuse(&table.this, message, "");
        return schedules;
    }
    for (name, entry) in &table.entries {
        reader.remember(entry);
        if let Some(mistake) = name_mistake("a schedule", name) {
            reader.refuse(entry, mistake, "");
        }
        if let Some(schedule) = read_schedule(reader, entry) {
            schedules.insert(name.clone(), schedule);
        }
    }
    schedules
}

fn read_schedule<'a>(reader: &mut Reader<'a>, entry: &Entry<'a>) -> Option<Schedule> {
    let section = reader.section(entry, &["cron", "time_zone", "assets", "partition", "misfire"])?;
    reader.remember_children(entry);
    let cron = reader.required(&section, "cron", &format!("add cron = \"...\": {CRON_FIX}")).cloned();
    let time_zone = section.get("time_zone").map(|entry| (entry, reader.string(entry)));
    if let Some(entry) = &cron {
        check_cron(reader, entry);
    }
    let time_zone = match time_zone {
        None => "UTC",
        Some((_, None)) => return None,
        Some((entry, Some(zone))) => {
            if let Err(FireTimesError::Zone) = FireTimes::new("@daily", zone) {
                let fix = "write an IANA name such as \"UTC\" or \"Europe/Berlin\"";
                reader.refuse(entry, format!("\"{}\" is not a time zone", shown(zone)), fix);
            }
            zone
        }
    };
    let assets = section.get("assets").map_or(Some(Vec::new()), |entry| read_assets(reader, entry));
    let partition = section.get("partition").map(|entry| reader.word(entry, &PARTITIONS));
    let misfire = section.get("misfire").map_or(Some(Misfire::RunOnce), |entry| read_misfire(reader, entry));
    Some(Schedule {
        cron: cron?.text()?.to_owned(),
        time_zone: time_zone.to_owned(),
        assets: assets?,
        partition: match partition {
            None => None,
            Some(partition) => Some(partition?),
        },
        misfire: misfire?,
    })
}

fn check_cron<'a>(reader: &mut Reader<'a>, entry: &Entry<'a>) {
    let Some(cron) = reader.string(entry) else { return };
    if cron.len() > CRON_BYTES_MAX {
        let message = format!("{} bytes are more than the {CRON_BYTES_MAX} of a pattern", cron.len());
        reader.refuse(entry, message, "write ranges and steps, or several schedules");
        return;
    }
    match FireTimes::new(cron, "UTC") {
        Err(error @ FireTimesError::Pattern(_)) => {
            let message = format!("\"{}\" is not a cron pattern: {}", shown(cron), shown(&error.to_string()));
            reader.refuse(entry, message, CRON_FIX);
        }
        Err(error) => reader.refuse(entry, format!("\"{}\" never fires: {error}", shown(cron)), ""),
        Ok(_) => {}
    }
}

fn read_assets<'a>(reader: &mut Reader<'a>, entry: &Entry<'a>) -> Option<Vec<String>> {
    let names = reader.strings(entry)?;
    if names.is_empty() {
        reader.refuse(entry, "an empty list runs nothing", "name assets, or remove it to run all of them");
        return None;
    }
    if names.len() > ASSETS_PER_PIPELINE_MAX {
        let message = format!("{} assets are more than the {ASSETS_PER_PIPELINE_MAX} of a pipeline", names.len());
        reader.refuse(entry, message, "remove it to run all of them");
        return None;
    }
    let mut sorted: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    sorted.sort_unstable();
    if let Some(twice) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        reader.refuse(entry, format!("\"{}\" is listed twice", shown(&twice[0])), "remove one of the two");
        return None;
    }
    Some(sorted)
}

/// `"skip"`, `"run-once"`, or `{ catch_up = 10 }`.
fn read_misfire<'a>(reader: &mut Reader<'a>, entry: &Entry<'a>) -> Option<Misfire> {
    if entry.text().is_some() {
        return reader.word(entry, &MISFIRES);
    }
    if !entry.is_table() {
        reader.refuse(entry, "must be \"skip\", \"run-once\" or a table", "for example { catch_up = 10 }");
        return None;
    }
    let section = reader.section(entry, &["catch_up"])?;
    let most = reader.required(&section, "catch_up", "say how many runs at most, for example { catch_up = 10 }")?;
    reader.integer(most, 1, CATCH_UP_MAX).map(Misfire::CatchUp)
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{refused, sound},
        *,
    };

    #[test]
    fn every_field_is_read_and_has_a_default() {
        let lines = r#"
[schedules.nightly]
cron = "30 2 * * MON-FRI"
time_zone = "Europe/Berlin"
assets = ["monthly", "clean"]
partition = "previous"
misfire = { catch_up = 10 }
[schedules.plain]
cron = "@hourly"
[schedules.seconds]
cron = "*/5 * * * * *"
partition = "current"
misfire = "skip"
"#;
        let schedules = sound(lines).schedules;
        let nightly = Schedule {
            cron: "30 2 * * MON-FRI".into(),
            time_zone: "Europe/Berlin".into(),
            assets: vec!["clean".into(), "monthly".into()],
            partition: Some(FirePartition::Previous),
            misfire: Misfire::CatchUp(10),
        };
        assert_eq!(schedules["nightly"], nightly);
        let plain = Schedule {
            cron: "@hourly".into(),
            time_zone: "UTC".into(),
            assets: vec![],
            partition: None,
            misfire: Misfire::RunOnce,
        };
        assert_eq!(schedules["plain"], plain);
        let seconds = Schedule {
            cron: "*/5 * * * * *".into(),
            partition: Some(FirePartition::Current),
            misfire: Misfire::Skip,
            ..plain
        };
        assert_eq!(schedules["seconds"], seconds);
    }

    #[track_caller]
    fn check(line: &str, expected: &str) {
        refused(&format!("[schedules.nightly]\ncron = \"0 6 * * *\"\n{line}\n"), expected);
    }

    #[track_caller]
    fn check_cron(cron: &str, expected: &str) {
        refused(&format!("[schedules.nightly]\ncron = {cron}\n"), expected);
    }

    #[test]
    fn mistakes_are_answered_with_their_place_and_their_fix() {
        check("zone = \"UTC\"", "flowstone.toml:7:1: schedules.nightly.zone: unknown key");
        check("time_zone = \"Europe/berlin\"", "schedules.nightly.time_zone: \"Europe/berlin\" is not a time zone");
        check("time_zone = 1", "schedules.nightly.time_zone: must be text in quotes, not a whole number");
        check("assets = []", "schedules.nightly.assets: an empty list runs nothing");
        check("assets = [\"a\", \"a\"]", "\"a\" is listed twice");
        check("assets = \"a\"", "must be a list of texts");
        check("partition = \"previus\"", "\"previus\" is not known here; did you mean `previous`?");
        check("misfire = \"run_once\"", "did you mean `run-once`?");
        check("misfire = 3", "misfire: must be \"skip\", \"run-once\" or a table");
        check("misfire = {}", "schedules.nightly.misfire.catch_up: missing");
        check("misfire = { catch_up = 0 }", "0 is out of bounds; from 1 to 1000");
        check("misfire = { catch_up = 1001 }", "1001 is out of bounds; from 1 to 1000");
        check("misfire = { cathc_up = 1, catch_up = 1 }", "unknown key; did you mean `catch_up`?");
    }

    #[test]
    fn a_pattern_that_cannot_be_read_or_never_fires_is_refused() {
        refused("[schedules.nightly]\ntime_zone = \"UTC\"\n", "schedules.nightly.cron: missing; add cron");
        check_cron("6", "must be text in quotes");
        check_cron("\"0 6 * *\"", "schedules.nightly.cron: \"0 6 * *\" is not a cron pattern: pattern must have");
        check_cron("\"0 6 * * * * 2024\"", "is not a cron pattern");
        check_cron("\"60 6 * * *\"", "is not a cron pattern: ");
        check_cron("\"0 6 * * XYZ\"", "is not a cron pattern: ");
        check_cron("\"@fortnightly\"", "is not a cron pattern: ");
        check_cron("\"\"", "is not a cron pattern: ");
        check_cron("\"0 6 30 2 *\"", "\"0 6 30 2 *\" never fires: no day of any year is like that");
        check_cron(
            &format!("\"{} 6 * * *\"", vec!["1"; 200].join(",")),
            "407 bytes are more than the 256 of a pattern",
        );
    }

    #[test]
    fn a_pipeline_has_a_bounded_number_of_schedules_with_names() {
        let many: String =
            (0..=SCHEDULES_PER_PIPELINE_MAX).map(|n| format!("[schedules.s{n}]\ncron = \"@daily\"\n")).collect();
        refused(&many, "schedules: 101 schedules are more than the 100 of a pipeline");
        refused("[schedules.Nightly]\ncron = \"@daily\"\n", "schedules.Nightly");
    }
}
