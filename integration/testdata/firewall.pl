# Downloads a file with Net::FTP through a firewall of one of its types:
#   firewall.pl FIREWALL TYPE HOST USER PASSWORD REMOTE LOCAL
use strict;
use warnings;
use Net::FTP;

my ($firewall, $type, $host, $user, $password, $remote, $local) = @ARGV;

my %options = (Timeout => 60, Debug => 1, Passive => 1);
if ($type) {
	%options = (%options, Firewall => $firewall, FirewallType => $type);
}
else {
	($host, $options{Port}) = split /:/, $host;
}
my $ftp = Net::FTP->new($host, %options) or die "connect: $@";
$ftp->login($user, $password) or die "login: " . $ftp->code . " " . $ftp->message;
$ftp->binary or die "binary: " . $ftp->message;
$ftp->get($remote, $local) or die "get: " . $ftp->code . " " . $ftp->message;
$ftp->quit;
