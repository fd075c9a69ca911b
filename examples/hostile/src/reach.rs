//! Assets that reach for what is not theirs: files, the environment, the network, other assets' data.
//!
//! Each gives back what it got. What the host answers instead is passed on as the asset's failure.

use std::env;
use std::io::Read;
use std::net::TcpStream;

use flowstone_sdk::prelude::*;
use serde::Serialize;

/// Reads a file above its directory, by `..`.
#[asset(requires(vault = files("says that it reads prices")))]
fn reads_parent(ctx: &Context) -> Result<String> {
    ctx.directory("vault")?.text("../secret.csv")
}

/// Reads a file of the machine, by its absolute path.
#[asset(requires(vault = files("says that it reads prices")))]
fn reads_absolute(ctx: &Context) -> Result<String> {
    ctx.directory("vault")?.text("/etc/passwd")
}

/// Reads a file above its directory, through a link that somebody left in it.
#[asset(requires(vault = files("says that it reads prices")))]
fn follows_link(ctx: &Context) -> Result<String> {
    ctx.directory("vault")?.text("way_out.csv")
}

/// Opens a directory that it does not require, and so was not granted.
#[asset]
fn opens_ungranted(ctx: &Context) -> Result<String> {
    ctx.directory("vault")?.text("prices.csv")
}

/// Opens the machine's files as a program would, without asking for a grant.
#[asset]
fn opens_file() -> Result<String> {
    Ok(std::fs::read_to_string("/etc/passwd")?)
}

/// Reads an input that it did not declare.
#[asset]
fn reads_undeclared(ctx: &Context) -> Result<String> {
    ctx.input("honest")?.text()
}

/// Connects to a database on its own machine.
#[asset]
fn opens_socket() -> Result<Vec<u8>> {
    let mut greeting = vec![0; 64];
    let length = TcpStream::connect("127.0.0.1:5432")?.read(&mut greeting)?;
    greeting.truncate(length);
    Ok(greeting)
}

/// Everything that the process would tell a program about itself: nothing.
#[derive(Serialize)]
struct Environment {
    variables: Vec<(String, String)>,
    arguments: Vec<String>,
}

/// Reads the environment and the arguments, and ends well with what it saw: nothing.
#[asset]
fn reads_environment() -> Result<Json<Environment>> {
    Ok(Json(Environment { variables: env::vars().collect(), arguments: env::args().collect() }))
}
