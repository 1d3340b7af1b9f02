package server

// checkPrivate does nothing on Windows: the data folder's access list, inherited
// from the user's or the service's own folder, already keeps others out.
func checkPrivate(string) error { return nil }
