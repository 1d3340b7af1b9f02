package capture

func tellsHoles(int) bool { return true }
