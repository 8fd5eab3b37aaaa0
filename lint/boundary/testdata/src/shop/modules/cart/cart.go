package cart

var X, Y int
