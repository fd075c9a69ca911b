//! The table of `docs/security.md` that shows the same attacks as plain programs and as assets is what comes out when
//! both are run again.

use std::process::Command;

use flowstone_tests::{Flowstone, Output, pipeline::root};

#[test]
fn the_attacks_of_security_end_side_by_side_as_it_says() {
    let flowstone = Flowstone::new();
    let mut script = Command::new(root().join("scripts/side-by-side"));
    script.arg("--check").arg("--flowstone").arg(flowstone.command([""; 0]).get_program());
    script.args(["--database", &flowstone.database().url()]);
    let said = Output::of(&mut script).expect_status(0);
    assert!(said.stderr.contains("20 attacks in"), "{}", said.stderr);
    assert_eq!(said.stdout.lines().count(), 2 + 20, "{}", said.stdout);
}
