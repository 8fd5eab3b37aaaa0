package users

type User struct{}
