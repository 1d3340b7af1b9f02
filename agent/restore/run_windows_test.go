package restore

const lockable = false
