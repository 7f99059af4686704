//! Updates and reads users: no acknowledged update is lost or applied twice, and no read returns a
//! version older than its minimum.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tidings_client::{Caller, Error};
use tidings_proto::user::user_service_client::UserServiceClient;
use tidings_proto::user::{Consistency, CreateUserRequest, GetUserRequest, UpdateUserRequest, User};

use super::{CallError, LedgerCounts, Workload};
use crate::service::TestService;

const USERS: usize = 20;
/// One in this many calls is an update.
const WRITES: u64 = 4;
/// Retry time of the calls that prepare the workload and check its ledger.
const PATIENCE: Duration = Duration::from_secs(30);

/// The workload of user.
pub(crate) struct UserWorkload {
    caller: Caller,
    retrying: Caller,
    users: Vec<UserLedger>,
    counts: Mutex<LedgerCounts>,
}

/// The ledger of one user.
struct UserLedger {
    /// Held during an update: each user has one writer at a time.
    writer: tokio::sync::Mutex<UserWriter>,
    /// The newest acknowledged version.
    newest: AtomicI64,
    /// The acknowledged name of each version.
    names: Mutex<HashMap<i64, String>>,
}

/// The state of the writer of a user.
struct UserWriter {
    version: i64,
    /// Names of the updates of this version that may have been applied, or may still be.
    pending: Vec<String>,
}

impl UserWorkload {
    /// Creates the users.
    pub(crate) async fn new(caller: Caller, instances: &[TestService]) -> Self {
        let retrying = super::caller_with_retries(instances, PATIENCE);
        for number in 0..USERS {
            let user = User { id: id(number), display_name: "first".to_owned(), ..User::default() };
            let request = CreateUserRequest { user: Some(user), ..CreateUserRequest::default() };
            let send = async |channel, request| UserServiceClient::new(channel).create_user(request).await;
            retrying.call("CreateUser", &request, send).await.unwrap();
        }
        let new = || UserLedger {
            writer: tokio::sync::Mutex::new(UserWriter { version: 1, pending: Vec::new() }),
            newest: AtomicI64::new(1),
            names: Mutex::new(HashMap::from([(1, "first".to_owned())])),
        };
        Self { caller, retrying, users: (0..USERS).map(|_| new()).collect(), counts: Mutex::default() }
    }

    async fn get(caller: &Caller, number: usize, min_version: i64, consistency: Consistency) -> Result<User, Error> {
        let request = GetUserRequest { id: id(number), min_version, consistency: consistency.into() };
        let send = async |channel, request| UserServiceClient::new(channel).get_user(request).await;
        Ok(caller.call("GetUser", &request, send).await?.user.unwrap_or_default())
    }

    /// Reads a user with the newest acknowledged version as minimum.
    async fn read(&self, number: usize) -> Result<(), Error> {
        let min_version = self.users[number].newest.load(Ordering::SeqCst);
        let user = Self::get(&self.caller, number, min_version, Consistency::Cached).await?;
        self.count(|counts| counts.reverted += u64::from(user.version < min_version));
        self.check_name(number, &user);
        Ok(())
    }

    /// Checks that the version has the name with which it was acknowledged.
    fn check_name(&self, number: usize, user: &User) {
        let other =
            self.users[number].names.lock().unwrap().get(&user.version).is_some_and(|name| *name != user.display_name);
        self.count(|counts| counts.lost += u64::from(other));
    }

    async fn update(&self, number: usize, writer: &mut UserWriter, name: String) -> Result<(), Error> {
        if !writer.pending.is_empty() {
            let user = Self::get(&self.caller, number, 0, Consistency::Strong).await?;
            self.resolve(number, writer, &user);
        }
        let request = UpdateUserRequest {
            user: Some(User { id: id(number), display_name: name.clone(), ..User::default() }),
            update_mask: Some(prost_types::FieldMask { paths: vec!["display_name".to_owned()] }),
            expected_version: writer.version,
        };
        writer.pending.push(name);
        let send = async |channel, request| UserServiceClient::new(channel).update_user(request).await;
        let user = self.caller.call("UpdateUser", &request, send).await?.user.unwrap_or_default();
        self.resolve(number, writer, &user);
        self.count(|counts| counts.acknowledged += 1);
        Ok(())
    }

    /// Resolves pending updates by the present state of the user.
    fn resolve(&self, number: usize, writer: &mut UserWriter, user: &User) {
        let next = user.version == writer.version + 1;
        self.count(|counts| {
            counts.lost +=
                u64::from(user.version < writer.version || next && !writer.pending.contains(&user.display_name));
            counts.duplicated += u64::from(user.version > writer.version + 1);
        });
        self.check_name(number, user);
        if user.version != writer.version {
            // Updates name the version they apply to, so the others can no longer be applied.
            writer.pending.clear();
            writer.version = user.version;
        }
        self.users[number].names.lock().unwrap().insert(user.version, user.display_name.clone());
        self.users[number].newest.fetch_max(user.version, Ordering::SeqCst);
    }

    fn count(&self, count: impl FnOnce(&mut LedgerCounts)) {
        count(&mut self.counts.lock().unwrap());
    }
}

impl Workload for UserWorkload {
    const NAME: &'static str = "user";

    async fn call(&self, number: u64) -> Result<(), CallError> {
        let user = usize::try_from(number).unwrap() % USERS;
        let result = match self.users[user].writer.try_lock() {
            Ok(mut writer) if number.is_multiple_of(WRITES) => {
                self.update(user, &mut writer, format!("name-{number}")).await
            }
            _ => self.read(user).await,
        };
        result.map_err(|error| CallError::from(&error))
    }

    fn ledger_lines(&self) -> Vec<String> {
        let line = |(number, user): (usize, &UserLedger)| format!("{} {:?}", id(number), user.names.lock().unwrap());
        self.users.iter().enumerate().map(line).collect()
    }

    async fn check_ledger(&self) -> LedgerCounts {
        for (number, ledger) in self.users.iter().enumerate() {
            let user = Self::get(&self.retrying, number, 0, Consistency::Strong).await.unwrap();
            let mut writer = ledger.writer.lock().await;
            self.resolve(number, &mut writer, &user);
            let cached = Self::get(&self.retrying, number, user.version, Consistency::Cached).await.unwrap();
            self.count(|counts| counts.reverted += u64::from(cached != user));
        }
        *self.counts.lock().unwrap()
    }
}

fn id(number: usize) -> String {
    format!("user-{number}")
}
