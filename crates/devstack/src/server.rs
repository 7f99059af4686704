//! One server process under its guard: started, watched, paused, killed and stopped.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::path::PathBuf;
use std::process::{Child, ExitStatus};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::place::Place;
use crate::reason::reason;
use crate::{Error, processes};

/// How long a server may take until it answers; recovery after a crash is part of it.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long a stop may take: the guard kills after 10 or 20 s.
const FAREWELL: Duration = Duration::from_secs(25);

const TICK: Duration = Duration::from_millis(10);

/// How a server is called and run.
#[derive(Debug)]
pub(crate) struct Recipe {
    pub(crate) name: &'static str,
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<OsString>,
    /// What asks it to end, in turn; words of `kill -s`.
    pub(crate) signals: &'static str,
}

/// A server that can be started again and again.
#[derive(Debug)]
pub(crate) struct Server {
    recipe: Recipe,
    place: Arc<Place>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Its stdin is what the guard reads: dropped with the child, it ends what is left.
    child: Option<Child>,
    /// How the last one ended, if it ended by itself.
    status: Option<ExitStatus>,
    /// Where in the log the present run begins.
    log_start: u64,
}

impl Server {
    pub(crate) fn new(recipe: Recipe, place: Arc<Place>) -> Self {
        let state = Mutex::default();
        Self { recipe, place, state }
    }

    /// Starts the server unless it runs, and waits until it `answers`.
    pub(crate) async fn start<F>(&self, answers: impl Fn() -> F) -> Result<(), Error>
    where
        F: Future<Output = bool>,
    {
        self.launch()?;
        let deadline = Instant::now() + PATIENCE;
        while !answers().await {
            if !self.running() {
                return Err(self.ended());
            }
            if Instant::now() > deadline {
                return Err(self.silent());
            }
            tokio::time::sleep(TICK).await;
        }
        Ok(())
    }

    pub(crate) fn running(&self) -> bool {
        self.pid().is_some()
    }

    /// Returns the process id of the server itself, `None` if it does not run.
    pub(crate) fn pid(&self) -> Option<u32> {
        let mut state = self.look();
        state.child.as_mut().map(|child| child.id())
    }

    /// Kills the server and its children at once, and waits until none of them runs.
    pub(crate) async fn kill(&self) {
        let Some(pid) = self.pid() else { return };
        // Stopped first, so that no child is born between the look and the blow.
        processes::send(pid, Signal::STOP);
        let family = family(pid);
        for &member in &family {
            processes::send(member, Signal::KILL);
        }
        while self.running() || family.iter().any(|&member| processes::alive(member)) {
            tokio::time::sleep(TICK).await;
        }
    }

    /// Stops the server and its children where they are.
    pub(crate) fn pause(&self) {
        if let Some(pid) = self.pid() {
            processes::send(pid, Signal::STOP);
            for member in family(pid) {
                processes::send(member, Signal::STOP);
            }
        }
    }

    /// Lets the server and its children go on.
    pub(crate) fn resume(&self) {
        if let Some(pid) = self.pid() {
            for member in family(pid) {
                processes::send(member, Signal::CONT);
            }
        }
    }

    /// Asks the server to end, and waits; the guard kills it if it does not obey.
    pub(crate) async fn stop(&self) {
        let deadline = self.let_go();
        while self.running() && Instant::now() < deadline {
            tokio::time::sleep(TICK).await;
        }
    }

    /// Closes the pipe that keeps the server alive. Returns until when it is worth to wait for its end.
    pub(crate) fn let_go(&self) -> Instant {
        if let Some(child) = &mut self.look().child {
            child.stdin = None;
        }
        Instant::now() + FAREWELL
    }

    fn launch(&self) -> Result<(), Error> {
        let mut state = self.look();
        if state.child.is_some() {
            return Ok(());
        }
        let path = self.place.log(self.recipe.name);
        let log = OpenOptions::new().create(true).append(true).open(&path);
        let log = log.map_err(Error::system("open", &path))?;
        state.log_start = log.metadata().map_or(0, |file| file.len());
        let mut command = self.place.guarded(&self.recipe.program, self.recipe.signals)?;
        command.args(&self.recipe.arguments).stderr(log);
        let child = command.spawn().map_err(Error::system("start", &self.recipe.program))?;
        state.child = Some(child);
        Ok(())
    }

    /// Takes the state, and notices first if the child has ended.
    fn look(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(child) = &mut state.child
            && let Ok(Some(status)) = child.try_wait()
        {
            state.child = None;
            state.status = Some(status);
        }
        state
    }

    fn ended(&self) -> Error {
        let state = self.look();
        let written = fs::read(self.place.log(self.recipe.name)).unwrap_or_default();
        let begin = usize::try_from(state.log_start).unwrap_or(0).min(written.len());
        let status = state.status.map_or_else(String::new, |status| status.to_string());
        let reason = reason(&String::from_utf8_lossy(&written[begin..]), self.place.dir());
        Error::Ended { server: self.recipe.name, reason: reason.unwrap_or(status) }
    }

    fn silent(&self) -> Error {
        Error::Silent { server: self.recipe.name, seconds: PATIENCE.as_secs(), log: self.place.log(self.recipe.name) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let deadline = self.let_go();
        while self.running() && Instant::now() < deadline {
            thread::sleep(TICK);
        }
    }
}

fn family(pid: u32) -> Vec<u32> {
    let mut family = vec![pid];
    family.extend(processes::children(pid));
    family
}
